package forks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Values of --patch-type, which are those of `kubectl patch --type`.
const (
	PatchStrategic = "strategic" // a strategic merge patch: lists of containers and the like are merged by name
	PatchMerge     = "merge"     // a JSON merge patch (RFC 7386)
	PatchJSON      = "json"      // a JSON patch (RFC 6902)
)

// maxPatch bounds a patch, in bytes: all annotations of an object together hold as much.
const maxPatch = 256 << 10

// A TemplatePatch is a --patch or --patch-file of pod templates.
type TemplatePatch struct {
	Type string // PatchStrategic, PatchMerge or PatchJSON
	Flag string // as it was given: "--patch", or "--patch-file NAME"
	text string
	doc  any // the patch, as JSON decodes it
}

// ParsePatch reads a patch of a pod template, JSON or YAML. Flag is how it was given, for messages.
func ParsePatch(flag, patchType, text string) (*TemplatePatch, error) {
	p := &TemplatePatch{Type: patchType, Flag: flag, text: text}
	if len(text) > maxPatch {
		return nil, fmt.Errorf("%s is %d bytes long, more than the %d that a fork can carry", flag, len(text), maxPatch)
	}
	doc, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s is neither JSON nor YAML: %s", flag, plan.FirstLine(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	if err := kjson.Unmarshal(doc, &p.doc); err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	switch patchType {
	case PatchStrategic, PatchMerge:
		err = checkMergePatch(p.doc)
	case PatchJSON:
		err = checkJSONPatch(p.doc)
	default:
		return nil, fmt.Errorf("--patch-type %q is not one of %s, %s and %s", patchType, PatchStrategic, PatchMerge, PatchJSON)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return p, nil
}

func checkMergePatch(doc any) error {
	patch, ok := doc.(map[string]any)
	if !ok {
		return fmt.Errorf("a merge patch is an object, such as {\"spec\": {...}}; --patch-type=%s is for a list of operations", PatchJSON)
	}
	spec, _ := patch["spec"].(map[string]any)
	if _, ok := spec["template"]; ok {
		return errors.New("it applies to the pod template, not on the workload: leave out the spec.template around it")
	}
	for _, field := range slices.Sorted(maps.Keys(patch)) {
		if field != "metadata" && field != "spec" && !strings.HasPrefix(field, "$") {
			return fmt.Errorf("it applies to the pod template, which has the fields metadata and spec, not %q", field)
		}
	}
	return nil
}

func checkJSONPatch(doc any) error {
	ops, ok := doc.([]any)
	if !ok {
		return fmt.Errorf("a JSON patch is a list of operations; --patch-type=%s is for an object such as {\"spec\": {...}}", PatchMerge)
	}
	for i, o := range ops {
		op, _ := o.(map[string]any)
		name, _ := op["op"].(string)
		path, _ := op["path"].(string)
		from, _ := op["from"].(string)
		_, value := op["value"]
		switch name {
		case "add", "replace", "test":
			if !value {
				return fmt.Errorf("operation %d: %s without a value", i, name)
			}
		case "move", "copy":
			if !strings.HasPrefix(from, "/") {
				return fmt.Errorf("operation %d: %s from %q, which is no path such as /spec/hostname", i, name, from)
			}
		case "remove":
		default:
			return fmt.Errorf("operation %d: %q is not one of add, remove, replace, move, copy and test", i, name)
		}
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf("operation %d: path %q is none such as /spec/containers/0/image", i, path)
		}
		if strings.HasPrefix(path, "/spec/template/") {
			return fmt.Errorf("operation %d: it applies to the pod template, not on the workload: path %q begins with /spec/template", i, path)
		}
	}
	return nil
}

// words returns the flags that give the patch. What came by a pipe can't be given again that way.
func (p *TemplatePatch) words() []string {
	words := []string{"--patch=" + p.text}
	if file, ok := strings.CutPrefix(p.Flag, "--patch-file "); ok && file != "-" {
		words = []string{"--patch-file=" + file}
	}
	if p.Type != PatchStrategic {
		words = append(words, "--patch-type="+p.Type)
	}
	return words
}

// Apply returns template with the patch applied; the template itself does not change.
func (p *TemplatePatch) Apply(template map[string]any) (changed map[string]any, err error) {
	if p.Type == PatchStrategic {
		return p.strategic(template)
	}
	doc, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	patch, err := json.Marshal(p.doc)
	if err != nil {
		return nil, err
	}
	if p.Type == PatchMerge {
		doc, err = jsonpatch.MergePatch(doc, patch)
	} else {
		doc, err = applyJSONPatch(doc, patch)
	}
	if err != nil {
		return nil, err
	}
	var out any
	if err := kjson.Unmarshal(bytes.TrimSpace(doc), &out); err != nil {
		return nil, err
	}
	if changed, ok := out.(map[string]any); ok {
		return changed, nil
	}
	return nil, errors.New("it removes the pod template")
}

func applyJSONPatch(doc, patch []byte) ([]byte, error) {
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	o := jsonpatch.NewApplyOptions()
	o.AccumulatedCopySizeLimit = maxPatch
	return p.ApplyWithOptions(doc, o)
}

// strategic merges by the schema of pod templates. Fields that it does not know stay as they are; in the patch itself it takes only
// those whose values are neither objects nor lists, since it can't know how to merge the others.
func (p *TemplatePatch) strategic(template map[string]any) (changed map[string]any, err error) {
	defer func() { // the library asserts types of what patches hold
		if r := recover(); r != nil {
			changed, err = nil, fmt.Errorf("it can't be merged: %v", r)
		}
	}()
	patch, ok := runtime.DeepCopyJSONValue(p.doc).(map[string]any)
	if !ok {
		return nil, errors.New("it is not an object")
	}
	merged, err := strategicpatch.StrategicMergeMapPatch(runtime.DeepCopyJSON(template), patch, corev1.PodTemplateSpec{})
	if err != nil {
		return nil, err
	}
	changed = runtime.DeepCopyJSON(merged)
	if !strings.Contains(p.text, "$setElementOrder") {
		fork.KeepOrder(template, changed)
	}
	return changed, nil
}

// patchProblem returns the Problem of a --patch that does not fit a workload.
func patchProblem(o *Options, w *plan.Workload, err error) error {
	p := &plan.Problem{
		What: fmt.Sprintf("%s does not fit the pod template of %s: %s", o.Patch.Flag, w, plan.FirstLine(err.Error())),
		Hint: "see the template", Fix: plan.Kubectl("get", w.Arg(), "-o", "yaml"), Err: err,
	}
	if o.Patch.Type == PatchStrategic && strings.Contains(err.Error(), "unable to find api field") {
		again := *o
		patch := *o.Patch
		patch.Type, again.Patch = PatchMerge, &patch
		return propose(p, "a JSON merge patch needs no schema (and replaces lists whole)", &again, w)
	}
	return p
}

// checkMetadata refuses changes of the template's metadata that a fork would not take over: the labels and annotations by which
// its pods are found are its own.
func checkMetadata(o *Options, w *plan.Workload, template, changed map[string]any) error {
	was, _, _ := unstructured.NestedMap(template, "metadata")
	is, ok, err := unstructured.NestedMap(changed, "metadata")
	if err != nil || !ok && len(was) > 0 {
		return patchProblem(o, w, errors.New("it removes the metadata"))
	}
	for _, field := range differing(was, is) {
		if field != "labels" && field != "annotations" {
			return patchProblem(o, w, fmt.Errorf("metadata.%s can't be set on a fork", field))
		}
	}
	stringsOf := func(m map[string]any, field string) map[string]any { v, _ := m[field].(map[string]any); return v }
	for _, name := range differing(stringsOf(was, "annotations"), stringsOf(is, "annotations")) {
		if name != sandbox.AnnotationOutgoing && !fork.Inherits(name) || name == sandbox.AnnotationPorts {
			return patchProblem(o, w, fmt.Errorf("the annotation %s can't be set on a fork", name))
		}
	}
	for _, name := range differing(stringsOf(was, "labels"), stringsOf(is, "labels")) {
		return patchProblem(o, w, fmt.Errorf("the label %s can't be set on a fork: selectors find pods by their labels", name))
	}
	return nil
}

// differing returns the names of what is not the same in both, in order.
func differing(a, b map[string]any) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, b)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(name string) bool { return reflect.DeepEqual(a[name], b[name]) })
}

// jsonText writes strings as JSON.
func jsonText(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings always encode
	}
	return strings.TrimSpace(b.String())
}
