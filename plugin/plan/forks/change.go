package forks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// A Change is what `fork` changes in pod templates, besides images.
type Change struct {
	Env            []EnvChange      // --env
	Containers     []string         // --container: those that the rest is for; none: see targets
	Command, Args  []string         // --command, --args; nil: not given; empty: the image's own
	Resources      []ResourceChange // --resources
	ServiceAccount string           // --service-account; empty: not given
	Patch          *TemplatePatch   // --patch or --patch-file; nil: not given
}

// Kinds of objects that an environment variable can be taken from, as they are written after "@".
const (
	fromSecret    = "secret"
	fromConfigMap = "configmap"
)

// An EnvChange is one --env: NAME=VALUE, NAME@secret/SECRET/KEY, NAME@configmap/CONFIGMAP/KEY, or NAME- to remove the
// variable. Text after "=" is always the value, since no variable's name contains "@".
type EnvChange struct {
	Name, Value string
	// From is fromSecret or fromConfigMap if the value is that of Key in the object; otherwise it is empty.
	From, Object, Key string
	Remove            bool
}

// String writes c as it is written after --env=.
func (c EnvChange) String() string {
	switch {
	case c.Remove:
		return c.Name + "-"
	case c.From != "":
		return c.Name + "@" + c.From + "/" + c.Object + "/" + c.Key
	}
	return c.Name + "=" + c.Value
}

// ParseEnv reads the value of --env.
func ParseEnv(s string) (EnvChange, error) {
	c := EnvChange{}
	name, value, set := strings.Cut(s, "=")
	at, from, taken := strings.Cut(s, "@")
	switch {
	case set:
		c.Name, c.Value = name, value
	case taken:
		c.Name = at
		if err := c.parseFrom(from); err != nil {
			return c, fmt.Errorf("--env %q: %w", s, err)
		}
	default:
		if c.Name, c.Remove = strings.CutSuffix(s, "-"); !c.Remove {
			return c, fmt.Errorf("--env %q is not one of NAME=VALUE, NAME@secret/SECRET/KEY, NAME@configmap/CONFIGMAP/KEY and NAME-", s)
		}
	}
	if errs := validation.IsEnvVarName(c.Name); len(errs) > 0 {
		return c, fmt.Errorf("--env %q: %s", s, errs[0])
	}
	return c, nil
}

func (c *EnvChange) parseFrom(s string) error {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return errors.New(`after "@" stands secret/SECRET/KEY or configmap/CONFIGMAP/KEY`)
	}
	switch parts[0] {
	case fromSecret, "secrets":
		c.From = fromSecret
	case fromConfigMap, "configmaps", "cm":
		c.From = fromConfigMap
	default:
		return fmt.Errorf("%q is neither secret nor configmap", parts[0])
	}
	c.Object, c.Key = parts[1], parts[2]
	if errs := validation.IsDNS1123Subdomain(c.Object); len(errs) > 0 {
		return fmt.Errorf("%s %q: %s", c.From, c.Object, errs[0])
	}
	if errs := validation.IsConfigMapKey(c.Key); len(errs) > 0 {
		return fmt.Errorf("key %q: %s", c.Key, errs[0])
	}
	return nil
}

// variable returns the variable as a container's env holds it.
func (c *EnvChange) variable() map[string]any {
	if c.From == "" {
		return map[string]any{"name": c.Name, "value": c.Value}
	}
	ref := map[string]any{"name": c.Object, "key": c.Key}
	return map[string]any{"name": c.Name, "valueFrom": map[string]any{map[string]string{fromSecret: "secretKeyRef", fromConfigMap: "configMapKeyRef"}[c.From]: ref}}
}

// A ResourceChange is one part of --resources: requests.NAME=QUANTITY, limits.NAME=QUANTITY, or either with "-" to
// remove it.
type ResourceChange struct {
	List, Name, Quantity string // List is "requests" or "limits"
	Remove               bool
}

// String writes c as it is written after --resources=.
func (c ResourceChange) String() string {
	if c.Remove {
		return c.List + "." + c.Name + "-"
	}
	return c.List + "." + c.Name + "=" + c.Quantity
}

// ParseResources reads the value of --resources: comma-separated changes, named as in a ResourceQuota.
func ParseResources(s string) ([]ResourceChange, error) {
	var changes []ResourceChange
	for part := range strings.SplitSeq(s, ",") {
		name, quantity, set := strings.Cut(part, "=")
		c := ResourceChange{Quantity: quantity}
		if !set {
			if name, c.Remove = strings.CutSuffix(part, "-"); !c.Remove {
				return nil, fmt.Errorf("--resources %q: %q is neither NAME=QUANTITY nor NAME-", s, part)
			}
		}
		c.List, c.Name, _ = strings.Cut(name, ".")
		if c.List != "requests" && c.List != "limits" {
			return nil, fmt.Errorf("--resources %q: %q begins with neither requests. nor limits., such as requests.cpu and limits.memory", s, part)
		}
		if errs := validation.IsQualifiedName(c.Name); len(errs) > 0 {
			return nil, fmt.Errorf("--resources %q: %q names no resource: %s", s, part, errs[0])
		}
		if set {
			q, err := resource.ParseQuantity(quantity)
			if err != nil {
				return nil, fmt.Errorf("--resources %q: %q is not a quantity, such as 500m or 1Gi", s, quantity)
			}
			if q.Sign() < 0 {
				return nil, fmt.Errorf("--resources %q: %q is negative", s, quantity)
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// ParseWords reads the values of --command or --args: one word each, or a single list in JSON or YAML, such as ["sh",
// "-c"]. The empty list, [], restores the image's own command; it is not nil.
func ParseWords(flag string, values []string) ([]string, error) {
	if len(values) != 1 || !strings.HasPrefix(strings.TrimSpace(values[0]), "[") {
		return append([]string{}, values...), nil
	}
	var list []any
	if err := yaml.Unmarshal([]byte(values[0]), &list); err != nil {
		return nil, fmt.Errorf(`%s %q begins a list, but is none, such as ["sh", "-c"]`, flag, values[0])
	}
	words := make([]string, len(list))
	for i, v := range list {
		word, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%s %q: %v is not a string; put it into quotes", flag, values[0], v)
		}
		words[i] = word
	}
	return words, nil
}

// validate checks the change by itself. images means that --image is given as well.
func (c *Change) validate(images bool) error {
	if len(c.Containers) > 0 && !images && len(c.Env) == 0 && c.Command == nil && c.Args == nil && len(c.Resources) == 0 {
		return fmt.Errorf("--container %s: there is nothing for it; give --image, --env, --command, --args or --resources", c.Containers[0])
	}
	for i, name := range c.Containers {
		if errs := validation.IsDNS1123Label(name); len(errs) > 0 {
			return fmt.Errorf("--container %q: %s", name, errs[0])
		}
		if slices.Contains(c.Containers[:i], name) {
			return fmt.Errorf("--container %s is given twice", name)
		}
	}
	if c.ServiceAccount != "" {
		if errs := validation.IsDNS1123Subdomain(c.ServiceAccount); len(errs) > 0 {
			return fmt.Errorf("--service-account %q: %s", c.ServiceAccount, errs[0])
		}
	}
	return nil
}

// words returns the flags that request the change.
func (c *Change) words() []string {
	var words []string
	for _, e := range c.Env {
		words = append(words, "--env="+e.String())
	}
	for _, name := range c.Containers {
		words = append(words, "--container="+name)
	}
	words = append(words, listWords("--command", c.Command)...)
	words = append(words, listWords("--args", c.Args)...)
	for _, r := range c.Resources {
		words = append(words, "--resources="+r.String())
	}
	if c.ServiceAccount != "" {
		words = append(words, "--service-account="+c.ServiceAccount)
	}
	if c.Patch != nil {
		words = append(words, c.Patch.words()...)
	}
	return words
}

func listWords(flag string, values []string) []string {
	if values != nil && (len(values) == 0 || len(values) == 1 && strings.HasPrefix(strings.TrimSpace(values[0]), "[")) {
		return []string{flag + "=" + jsonText(values)}
	}
	var words []string
	for _, v := range values {
		words = append(words, flag+"="+v)
	}
	return words
}

// none reports whether nothing is to be changed.
func (c *Change) none() bool { return len(c.words()) == 0 }

// applyChange returns the template with the change and the images applied. template is a copy of w's with the changes
// of earlier forks. It warns of what it could not do, such as removing what does not exist.
func (p *Plan) applyChange(o *Options, w *plan.Workload, several bool, template map[string]any, images []ImageChange, known EnvSources) (map[string]any, error) {
	changed := runtime.DeepCopyJSON(template)
	if o.Patch != nil {
		var err error
		if changed, err = o.Patch.Apply(changed); err != nil {
			return nil, patchProblem(o, w, err)
		}
		if err := p.checkPatched(o, w, template, changed); err != nil {
			return nil, err
		}
	}
	changed, _ = setImages(changed, images)
	envOf, main, err := o.targets(w, several, changed, images)
	if err != nil {
		return nil, err
	}
	p.changeEnv(o, w, envOf, known)
	for _, c := range main {
		p.setWords(o, w, c)
		for _, r := range setResources(c, o.Resources) {
			p.warn("%s: --resources %s: container %s does not set it, so there is nothing to remove", w, r, c["name"])
		}
	}
	if spec, ok := changed["spec"].(map[string]any); ok && o.ServiceAccount != "" {
		spec["serviceAccountName"] = o.ServiceAccount
		if _, ok := spec["serviceAccount"]; ok { // its name of old, which the API server keeps equal
			spec["serviceAccount"] = o.ServiceAccount
		}
	}
	return changed, nil
}

// targets returns the containers whose environment changes, and those whose command, args and resources change. They
// are the named ones. If none is named, the environment of all containers except init containers changes, as with
// `kubectl set env`. The rest then changes in the main container: the only one, else the one that --image is for,
// else kubectl's default container.
func (o *Options) targets(w *plan.Workload, several bool, template map[string]any, images []ImageChange) (envOf, main []map[string]any, err error) {
	containers := namedMaps(template, "containers")
	all := slices.Concat(containers, namedMaps(template, "initContainers"))
	if len(o.Containers) > 0 {
		named := slices.DeleteFunc(all, func(c map[string]any) bool {
			name, _ := c["name"].(string)
			return !slices.Contains(o.Containers, name)
		})
		return named, named, nil
	}
	flag := o.mainFlag()
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
	again := *o
	if len(main) == 1 {
		again.Containers = []string{fmt.Sprint(main[0]["name"])}
	} else {
		again.Containers = have[:min(1, len(have))]
	}
	problem := &plan.Problem{What: fmt.Sprintf("%s does not say which container: %s has %s", flag, w, strings.Join(have, ", "))}
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

// noContainer returns the Problem of a --container that none of the forks has; nil if there is none.
func (o *Options) noContainer(workloads []*plan.Workload, forks []Fork) error {
	var all []containerAt
	for i := range forks {
		template, _, _ := unstructured.NestedMap(forks[i].Deployment.Object, "spec", "template")
		all = append(all, containersIn(forks[i].Workload, template)...)
	}
	for i, name := range o.Containers {
		if slices.ContainsFunc(all, func(c containerAt) bool { return c.name == name }) {
			continue
		}
		var have []string
		for _, c := range all {
			have = append(have, c.name)
		}
		again := *o
		again.Containers = slices.Clone(o.Containers)
		if again.Containers[i] = closest(name, all); again.Containers[i] == "" && len(have) > 0 {
			again.Containers[i] = have[0]
		}
		p := &plan.Problem{What: fmt.Sprintf("--container %s: no container is named %q; there is %s", name, name, strings.Join(have, ", "))}
		return propose(p, "name one there is", &again, workloads...)
	}
	return nil
}

// setWords changes the command and args of a container in place.
func (p *Plan) setWords(o *Options, w *plan.Workload, c map[string]any) {
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
	if args, _ := c["args"].([]any); o.Command != nil && o.Args == nil && len(args) > 0 {
		p.warn("%s: container %s keeps its args after the new --command: %s (--args=[] takes them away)", w, c["name"], jsonText(args))
	}
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

// checkPatched returns what is wrong with the template that --patch produced, and warns of fields that this program
// does not know.
func (p *Plan) checkPatched(o *Options, w *plan.Workload, template, changed map[string]any) error {
	var typed corev1.PodTemplateSpec
	unknown := map[string]bool{}
	_ = strictDecode(template, &corev1.PodTemplateSpec{}, func(field string) { unknown[field] = true })
	if err := strictDecode(changed, &typed, func(field string) {
		if !unknown[field] {
			p.warn("%s: %s: the pod template gets a field that this program does not know: %s", w, o.Patch.Flag, field)
		}
	}); err != nil {
		return patchProblem(o, w, err)
	}
	if len(typed.Spec.Containers) == 0 {
		return patchProblem(o, w, errors.New("it removes all containers"))
	}
	return checkMetadata(o, w, template, changed)
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
