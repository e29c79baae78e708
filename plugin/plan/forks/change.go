package forks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
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
