package admission

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Writer is how an object is being written.
type Writer struct {
	Apply bool // by a server-side apply
	Force bool // which takes fields from their managers
}

// writer reads how an object is being written. Only a server-side apply can set force, and has the entry of its field manager in
// managedFields be of the operation Apply.
func writer(req *admissionv1.AdmissionRequest, after *unstructured.Unstructured) Writer {
	var options struct {
		FieldManager string `json:"fieldManager"`
		Force        *bool  `json:"force"`
	}
	if err := json.Unmarshal(req.Options.Raw, &options); err != nil || options.FieldManager == "" {
		return Writer{}
	}
	w := Writer{Force: options.Force != nil && *options.Force}
	// A manager may have an entry of either operation. The API server gives the one that a request changes the request's time.
	var newest metav1.ManagedFieldsEntry
	for _, e := range after.GetManagedFields() {
		if e.Manager == options.FieldManager && e.Subresource == "" && (newest.Time == nil || e.Time != nil && newest.Time.Before(e.Time)) {
			newest = e
		}
	}
	w.Apply = w.Force || newest.Operation == metav1.ManagedFieldsOperationApply
	return w
}

// A Conflict is a targetPort that a server-side apply states otherwise than those who own it.
type Conflict struct {
	Port   int32
	Field  string
	Owners []string // as "MANAGER OPERATION"
}

// targetPortOwners are the field managers that stated the number of a Service's targetPort, by PortKey, as "MANAGER OPERATION". Since
// `route` has a name stand in the place of the number, managedFields can't hold them: see disown.
type targetPortOwners map[string][]string

// conflicts follows who owns the numbers of the targetPorts that the record lists, by the rules of server-side apply, and returns the
// conflicts that the API server would have reported if the numbers still stood there.
// https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts
func (s *serviceKeeper) conflicts(before, after *unstructured.Unstructured, w Writer) []Conflict {
	var found []Conflict
	there := managers(after)
	for i := range s.is.Spec.Ports {
		p := &s.is.Spec.Ports[i]
		key := sandbox.PortKey(string(p.Protocol), p.Port)
		target, listed := s.stated[key]
		if !listed {
			continue
		}
		path := targetPortPath(p)
		old := ownersOf(before, path)
		if !s.had {
			s.owners[key] = old // it was the number that they stated
			continue
		}
		// A manager that left, as kubectl's of client-side apply does for that of server-side apply, owns nothing any more.
		owners := slices.DeleteFunc(slices.Clone(s.owners[key]), func(o string) bool { return !there[o] })
		by := slices.DeleteFunc(ownersOf(after, path), func(o string) bool { return slices.Contains(old, o) })
		switch same := int64(target.Number) == statedNumber(p) || p.TargetPort.StrVal == target.Name; {
		case len(by) == 0: // it says nothing of the field
		case same:
			if w.Apply {
				owners = append(owners, by...)
			}
		case w.Apply && !w.Force && slices.ContainsFunc(owners, func(o string) bool { return !slices.Contains(by, o) }):
			others := slices.DeleteFunc(slices.Clone(owners), func(o string) bool { return slices.Contains(by, o) })
			found = append(found, Conflict{p.Port, "." + strings.TrimPrefix(path.String(), "."), others})
		default:
			owners = by
		}
		slices.Sort(owners)
		s.owners[key] = slices.Compact(owners)
	}
	maps.DeleteFunc(s.owners, func(key string, owners []string) bool { return len(owners) == 0 })
	return found
}

// statedNumber is the number of a targetPort: the API server sets an absent one to the port.
func statedNumber(p *corev1.ServicePort) int64 {
	if p.TargetPort.IntVal == 0 {
		return int64(p.Port)
	}
	return int64(p.TargetPort.IntVal)
}

// managers returns the managers of an object's fields, as "MANAGER OPERATION".
func managers(u *unstructured.Unstructured) map[string]bool {
	all := map[string]bool{}
	for _, e := range u.GetManagedFields() {
		if e.Subresource == "" {
			all[e.Manager+" "+string(e.Operation)] = true
		}
	}
	return all
}

// ownersOf returns the managers that own a field, but for those of this product. An entry that can't be read owns nothing: disown
// reports it.
func ownersOf(u *unstructured.Unstructured, path fieldpath.Path) []string {
	var owners []string
	for _, e := range u.GetManagedFields() {
		set := &fieldpath.Set{}
		if ours(e.Manager) || e.Subresource != "" || e.FieldsV1 == nil || set.FromJSON(e.FieldsV1.GetRawReader()) != nil {
			continue
		}
		if set.Has(path) {
			owners = append(owners, e.Manager+" "+string(e.Operation))
		}
	}
	return owners
}

// readOwners reads AnnotationTargetPortOwners. What can't be read owns nothing.
func readOwners(text string) targetPortOwners {
	owners := targetPortOwners{}
	if text == "" || json.Unmarshal([]byte(text), &owners) != nil || owners == nil {
		return targetPortOwners{}
	}
	return owners
}

func (o targetPortOwners) String() string {
	if len(o) == 0 {
		return ""
	}
	b, err := json.Marshal(map[string][]string(o))
	if err != nil {
		panic(err) // a map of strings always encodes
	}
	return string(b)
}

// refuse answers as the API server answers a server-side apply that conflicts.
func refuse(conflicts []Conflict) admission.Response {
	var causes []metav1.StatusCause
	var lines []string
	for _, c := range conflicts {
		for _, o := range c.Owners {
			manager, _, _ := strings.Cut(o, " ")
			causes = append(causes, metav1.StatusCause{
				Type: metav1.CauseTypeFieldManagerConflict, Field: c.Field, Message: fmt.Sprintf("conflict with %q using v1", manager),
			})
			lines = append(lines, fmt.Sprintf("conflict with %q using v1: %s", manager, c.Field))
		}
	}
	plural := ""
	if len(causes) > 1 {
		plural = "s"
	}
	response := admission.Denied("")
	response.Result = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict,
		Message: fmt.Sprintf("Apply failed with %d conflict%s: %s", len(causes), plural, strings.Join(lines, ", ")),
		Details: &metav1.StatusDetails{Causes: causes},
	}
	return response
}
