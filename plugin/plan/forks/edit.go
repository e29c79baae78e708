package forks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// edit returns the template with the change and the images applied, or a *Problem if they don't fit it. It warns of
// what it could not do, such as removing what does not exist.
func (r *request) edit(b *beginning, images []ImageChange) (changed map[string]any, said warnings, err error) {
	w := b.workload
	said = r.warnOfSameImages(b, images)
	changed = runtime.DeepCopyJSON(b.template)
	if r.Patch != nil {
		if changed, err = r.Patch.Apply(changed); err != nil {
			return nil, nil, patchProblem(r.Options, w, err)
		}
		if err := checkPatched(r.Options, w, b.template, changed); err != nil {
			return nil, nil, err
		}
		said = append(said, r.warnOfUnknownFields(w, b.template, changed)...)
	}
	changed, _ = setImages(changed, images)
	envOf, main, err := r.targets(w, changed, images)
	if err != nil {
		return nil, nil, err
	}
	removed := changeEnv(envOf, r.Env)
	said = append(said, r.warnOfEnv(w, envOf, removed)...)
	for _, c := range main {
		r.setWords(c)
		said = append(said, r.warnOfKeptArgs(w, c)...)
		for _, missed := range setResources(c, r.Resources) {
			said.add("%s: --resources %s: container %s does not set it, so there is nothing to remove", w, missed, c["name"])
		}
	}
	setServiceAccount(changed, r.ServiceAccount)
	return changed, said, nil
}

// setServiceAccount sets the service account of a template in place, if one is given.
func setServiceAccount(template map[string]any, name string) {
	if spec, ok := template["spec"].(map[string]any); ok && name != "" {
		spec["serviceAccountName"] = name
		if _, ok := spec["serviceAccount"]; ok { // its name of old, which the API server keeps equal
			spec["serviceAccount"] = name
		}
	}
}

// warnOfSameImages warns that an existing fork runs the images already, if nothing else changes.
func (r *request) warnOfSameImages(b *beginning, images []ImageChange) (said warnings) {
	if _, same := setImages(b.template, images); same && b.old != nil && !r.Restart && r.none() {
		said.add("%s runs image %s already, so it does not change; --restart rolls it out",
			plan.DeploymentName(b.options.Name), joined(images))
	}
	return said
}

// targets returns the containers whose environment changes, and those whose command, args and resources change. They
// are the named ones. If none is named, the environment of all containers except init containers changes, as with
// `kubectl set env`. The rest then changes in the main container: the only one, else the one that --image is for,
// else kubectl's default container.
func (r *request) targets(
	w *plan.Workload, template map[string]any, images []ImageChange,
) (envOf, main []map[string]any, err error) {
	containers := namedMaps(template, "containers")
	all := slices.Concat(containers, namedMaps(template, "initContainers"))
	if len(r.Containers) > 0 {
		named := slices.DeleteFunc(all, func(c map[string]any) bool {
			name, _ := c["name"].(string)
			return !slices.Contains(r.Containers, name)
		})
		return named, named, nil
	}
	flag, several := r.mainFlag(), len(r.workloads) > 1
	if flag == "" {
		return containers, nil, nil
	}
	if len(containers) != 1 && len(images) == 1 {
		main = slices.DeleteFunc(slices.Clone(all), func(c map[string]any) bool { return c["name"] != images[0].Container })
	} else if len(containers) != 1 {
		name, _, _ := unstructured.NestedString(template, "metadata", "annotations", defaultContainer)
		main = slices.DeleteFunc(slices.Clone(containers), func(c map[string]any) bool { return c["name"] != name })
	} else {
		main = containers
	}
	if len(main) == 1 && !several {
		return containers, main, nil
	}
	var have []string
	for _, c := range all {
		have = append(have, fmt.Sprint(c["name"]))
	}
	again := *r.Options
	if len(main) == 1 {
		again.Containers = []string{fmt.Sprint(main[0]["name"])}
	} else {
		again.Containers = have[:min(1, len(have))]
	}
	problem := &plan.Problem{
		What: fmt.Sprintf("%s does not say which container: %s has %s", flag, w, strings.Join(have, ", ")),
	}
	say := "name the container"
	if several {
		problem.What = flag + " does not say for which of the workloads' containers it is"
		say = "fork them one after the other into the same sandbox"
	}
	return nil, nil, propose(problem, say, &again, w)
}

// mainFlag returns a given flag that is for one container; empty if there is none.
func (o *Options) mainFlag() string {
	switch {
	case o.Command != nil:
		return "--command"
	case o.Args != nil:
		return "--args"
	case len(o.Resources) > 0:
		return "--resources " + o.Resources[0].String()
	}
	return ""
}

// setWords changes the command and args of a container in place.
func (o *Options) setWords(c map[string]any) {
	for _, f := range []struct {
		field string
		words []string
	}{{"command", o.Command}, {"args", o.Args}} {
		switch {
		case f.words == nil:
		case len(f.words) == 0:
			delete(c, f.field)
		default:
			list := make([]any, len(f.words))
			for i, word := range f.words {
				list[i] = word
			}
			c[f.field] = list
		}
	}
}

// warnOfKeptArgs warns that the args of a container are those of the command that it had before.
func (r *request) warnOfKeptArgs(w *plan.Workload, c map[string]any) (said warnings) {
	if args, _ := c["args"].([]any); r.Command != nil && r.Args == nil && len(args) > 0 {
		said.add("%s: container %s keeps its args after the new --command: %s (--args=[] takes them away)",
			w, c["name"], jsonText(args))
	}
	return said
}

// setResources changes requests and limits of a container in place, and returns the removals that found nothing to
// remove.
func setResources(c map[string]any, changes []ResourceChange) (missed []ResourceChange) {
	for _, change := range changes {
		resources, _ := c["resources"].(map[string]any)
		list, _ := resources[change.List].(map[string]any)
		if change.Remove {
			if _, ok := list[change.Name]; !ok {
				missed = append(missed, change)
			}
			delete(list, change.Name)
			continue
		}
		if resources == nil {
			resources = map[string]any{}
			c["resources"] = resources
		}
		if list == nil {
			list = map[string]any{}
			resources[change.List] = list
		}
		list[change.Name] = change.Quantity
	}
	return missed
}

// checkPatched returns what is wrong with the template that --patch produced.
func checkPatched(o *Options, w *plan.Workload, template, changed map[string]any) error {
	var typed corev1.PodTemplateSpec
	if err := strictDecode(changed, &typed, func(string) {}); err != nil {
		return patchProblem(o, w, err)
	}
	if len(typed.Spec.Containers) == 0 {
		return patchProblem(o, w, errors.New("it removes all containers"))
	}
	return checkMetadata(o, w, template, changed)
}

// warnOfUnknownFields warns of fields that --patch adds and that this program does not know.
func (r *request) warnOfUnknownFields(w *plan.Workload, template, changed map[string]any) (said warnings) {
	known := map[string]bool{}
	_ = strictDecode(template, &corev1.PodTemplateSpec{}, func(field string) { known[field] = true })
	_ = strictDecode(changed, &corev1.PodTemplateSpec{}, func(field string) { // checkPatched has returned its error
		if !known[field] {
			said.add("%s: %s: the pod template gets a field that this program does not know: %s", w, r.Patch.Flag, field)
		}
	})
	return said
}

// strictDecode decodes a template and reports the fields that it does not know.
func strictDecode(template map[string]any, into *corev1.PodTemplateSpec, unknown func(field string)) error {
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(template, into, true)
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return err
	}
	for _, e := range strict.Errors() {
		unknown(strings.Trim(strings.TrimPrefix(e.Error(), "unknown field "), `"`))
	}
	return nil
}

// setImages returns the template with the images changed, and whether there are changes and all of them were in place
// already.
func setImages(template map[string]any, images []ImageChange) (changed map[string]any, same bool) {
	changed = runtime.DeepCopyJSON(template)
	same = len(images) > 0
	for _, field := range []string{"containers", "initContainers"} {
		for _, c := range namedMaps(changed, field) {
			for _, change := range images {
				if c["name"] == change.Container {
					same = same && c["image"] == change.Image
					c["image"] = change.Image
				}
			}
		}
	}
	return changed, same
}

// namedMaps returns the objects of the list at spec.FIELD. They share memory with the template: a change to one
// changes the template.
func namedMaps(template map[string]any, field string) []map[string]any {
	spec, _ := template["spec"].(map[string]any)
	list, _ := spec[field].([]any)
	var out []map[string]any
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func joined(images []ImageChange) string {
	parts := make([]string, len(images))
	for i, c := range images {
		parts[i] = c.Image
	}
	return strings.Join(parts, ", ")
}
