// Package sandboxes says how the sandboxes and routes of a namespace are, from objects that were read, and plans what
// changes a sandbox without planning a fork: its lifetime, and who is let in.
package sandboxes

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Sandbox is a sandbox's ConfigMap and forks. If it is half-created or half-deleted, one of both is missing.
type Sandbox struct {
	Namespace, Name, Key string
	CreatedBy            string
	Created              time.Time
	Expires              time.Time         // zero: never
	ConfigMap            *corev1.ConfigMap // nil: forks are left that nothing owns
	Forks                []appsv1.Deployment
	Policies             []networkingv1.NetworkPolicy // of the forks; only if requested
	Counts               route.Totals
}

// Group groups ConfigMaps and forks by sandbox, in order of namespace and name.
func Group(configMaps []corev1.ConfigMap, forks []appsv1.Deployment) []Sandbox {
	type at struct{ namespace, name string }
	byName := map[at]*Sandbox{}
	for i := range configMaps {
		cm := &configMaps[i]
		s := &Sandbox{
			Namespace: cm.Namespace, Name: cm.Labels[sandbox.LabelSandbox], Key: cm.Data[sandbox.DataKey],
			CreatedBy: cm.Data[sandbox.DataCreatedBy], Created: cm.CreationTimestamp.Time, ConfigMap: cm,
		}
		// An invalid time or count is shown as none: a table must not fail.
		s.Expires, _ = time.Parse(time.RFC3339, cm.Data[sandbox.DataExpires])
		_ = json.Unmarshal([]byte(cm.Data[sandbox.DataCounts]), &s.Counts)
		byName[at{s.Namespace, s.Name}] = s
	}
	for _, d := range forks {
		where := at{d.Namespace, d.Labels[sandbox.LabelSandbox]}
		s := byName[where]
		if s == nil {
			s = &Sandbox{Namespace: d.Namespace, Name: where.name, Key: d.Annotations[sandbox.AnnotationKey], Created: d.CreationTimestamp.Time}
			byName[where] = s
		}
		s.Forks = append(s.Forks, d)
	}
	out := make([]Sandbox, 0, len(byName))
	for _, s := range byName {
		slices.SortFunc(s.Forks, func(a, b appsv1.Deployment) int { return cmp.Compare(a.Name, b.Name) })
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Sandbox) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// AddPolicies adds the policies of forks to their sandboxes, in order of name. If only policies are left of a
// sandbox, they form one.
func AddPolicies(sandboxes []Sandbox, policies []networkingv1.NetworkPolicy) []Sandbox {
	for i := range policies {
		p := &policies[i]
		of := func(s Sandbox) bool { return s.Namespace == p.Namespace && s.Name == p.Labels[sandbox.LabelSandbox] }
		at := slices.IndexFunc(sandboxes, of)
		if at < 0 {
			at = len(sandboxes)
			sandboxes = append(sandboxes, Sandbox{Namespace: p.Namespace, Name: p.Labels[sandbox.LabelSandbox], Created: p.CreationTimestamp.Time})
		}
		sandboxes[at].Policies = append(sandboxes[at].Policies, *p)
	}
	for i := range sandboxes {
		slices.SortFunc(sandboxes[i].Policies, func(a, b networkingv1.NetworkPolicy) int { return cmp.Compare(a.Name, b.Name) })
	}
	return sandboxes
}

// Ready counts the forks that are ready: routed, or in no need of that, with all pods of the newest template.
func (s *Sandbox) Ready() int {
	n := 0
	for i := range s.Forks {
		if complete(&s.Forks[i]) {
			n++
		}
	}
	return n
}

// Workloads returns the forks' baselines as command-line arguments: "deployment/api".
func (s *Sandbox) Workloads() []string {
	out := make([]string, len(s.Forks))
	for i := range s.Forks {
		out[i] = WorkloadOf(&s.Forks[i])
	}
	return out
}

// WorkloadOf returns a fork's baseline as a command-line argument: "deployment/api".
func WorkloadOf(d *appsv1.Deployment) string {
	return strings.Replace(d.Labels[sandbox.LabelWorkload], ".", "/", 1)
}

// complete reports whether the Deployment controller has seen the fork's newest template, and all pods are of it and
// available.
func complete(d *appsv1.Deployment) bool {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	st := d.Status
	return st.ObservedGeneration >= d.Generation && st.UpdatedReplicas == want && st.Replicas == want && st.AvailableReplicas == want
}

// A RouterVersion counts the pods that have a router of one version.
type RouterVersion struct {
	Version string `json:"version"`
	Pods    int    `json:"pods"`
}

// RouterVersions counts the routers in pods by the tags of their images, or what else the reference ends with; most frequent
// first.
func RouterVersions(pods []corev1.Pod) []RouterVersion {
	counts := map[string]int{}
	for i := range pods {
		for _, c := range pods[i].Spec.InitContainers {
			if c.Name == sandbox.RouterContainer {
				counts[strings.TrimLeft(strings.TrimPrefix(c.Image, plan.Repository(c.Image)), ":@")]++
			}
		}
	}
	var out []RouterVersion
	for version, n := range counts {
		out = append(out, RouterVersion{version, n})
	}
	slices.SortFunc(out, func(a, b RouterVersion) int {
		return cmp.Or(cmp.Compare(b.Pods, a.Pods), cmp.Compare(a.Version, b.Version))
	})
	return out
}
