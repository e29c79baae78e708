package env

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// An Object is a ConfigMap or Secret that variables are taken from.
type Object struct {
	// Data holds its values by key.
	Data map[string]string
	// NamesOnly says that the keys are known and the values are not.
	NamesOnly bool
	// Unread says that nothing is known of it.
	Unread bool
}

// Sources are what variables are taken from. A function that is nil knows nothing.
type Sources struct {
	// ConfigMap and Secret return the object of the name; false: there is none.
	ConfigMap, Secret func(name string) (Object, bool)
	// Field returns the value of a field of the pod by its path, such as metadata.name; false: it is not known.
	Field func(path string) (string, bool)
	// Services are the variables that the kubelet makes of the namespace's Services, and of the API server's.
	Services map[string]string
}

// A Variable is one that a container's process has.
type Variable struct {
	Name  string
	Value string
	// Known says that Value is the value. Without it the process has the variable, with another value.
	Known bool
	// Maybe says that whether the process has the variable is not known.
	Maybe bool
	// Origin is where it comes from: "env", "configmap/NAME", "secret/NAME", "field PATH", "resource NAME", "file PATH" or "service".
	Origin string
	// Hidden says that the value is a Secret's, or is made of one.
	Hidden bool
}

// An Environment is that of one container.
type Environment struct {
	Variables []Variable // in the order of their names
	// Unread are the objects of envFrom of which nothing is known, as "configmap/NAME" and "secret/NAME": the process may have
	// further variables.
	Unread []string
	// Missing are the objects and keys that are not there and not optional: the kubelet does not start the container.
	Missing []string
}

// Lookup returns the variable of that name.
func (e *Environment) Lookup(name string) (Variable, bool) {
	at, ok := slices.BinarySearchFunc(e.Variables, name, func(v Variable, name string) int { return strings.Compare(v.Name, name) })
	if !ok {
		return Variable{}, false
	}
	return e.Variables[at], true
}

// Expand returns s, an argument or a word of the command, as the process gets it; false where a value in it is not known.
func (e *Environment) Expand(s string) (string, bool) {
	known := true
	expanded := Expand(s, func(name string) (string, bool) {
		v, ok := e.Lookup(name)
		known = known && (!ok || v.Known) && (ok || len(e.Unread) == 0)
		return v.Value, ok
	})
	return expanded, known
}

// A resolution is an environment in the making.
type resolution struct {
	sources Sources
	vars    map[string]Variable
	*Environment
}

// Resolve returns the environment of a container, as the kubelet makes it: envFrom first, of which later entries win; then env in
// its order, each entry of which sees those before it, so that of several of one name the last counts; then the Services'.
func Resolve(c *corev1.Container, s Sources) *Environment {
	r := &resolution{sources: s, vars: map[string]Variable{}, Environment: &Environment{}}
	for i := range c.EnvFrom {
		r.from(&c.EnvFrom[i])
	}
	for i := range c.Env {
		r.add(&c.Env[i])
	}
	for name, value := range s.Services {
		if _, ok := r.vars[name]; !ok {
			r.vars[name] = Variable{Name: name, Value: value, Known: true, Origin: "service"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.vars)) {
		r.Variables = append(r.Variables, r.vars[name])
	}
	return r.Environment
}

// from adds the variables of an entry of envFrom.
func (r *resolution) from(e *corev1.EnvFromSource) {
	var name, origin string
	var optional *bool
	var o Object
	var ok bool
	switch {
	case e.ConfigMapRef != nil:
		name, optional = e.ConfigMapRef.Name, e.ConfigMapRef.Optional
		origin = "configmap/" + name
		o, ok = object(r.sources.ConfigMap, name)
	case e.SecretRef != nil:
		name, optional = e.SecretRef.Name, e.SecretRef.Optional
		origin = "secret/" + name
		o, ok = object(r.sources.Secret, name)
	default:
		return
	}
	switch {
	case !ok && (optional == nil || !*optional):
		r.Missing = append(r.Missing, origin)
	case o.Unread:
		if !slices.Contains(r.Unread, origin) {
			r.Unread = append(r.Unread, origin)
		}
	}
	for key, value := range o.Data {
		r.vars[e.Prefix+key] = Variable{
			Name: e.Prefix + key, Value: value, Known: !o.NamesOnly, Origin: origin, Hidden: e.SecretRef != nil,
		}
	}
}

func object(read func(string) (Object, bool), name string) (Object, bool) {
	if read == nil {
		return Object{Unread: true}, true
	}
	return read(name)
}

// add adds an entry of env.
func (r *resolution) add(e *corev1.EnvVar) {
	v := Variable{Name: e.Name, Known: true, Origin: "env"}
	if e.Value == "" && e.ValueFrom != nil {
		var there bool
		if v, there = r.taken(e.Name, e.ValueFrom); !there {
			return // optional, and not there: what the name had before stays
		}
		if v.Maybe {
			if before, ok := r.vars[e.Name]; ok {
				v.Maybe, v.Hidden = before.Maybe, v.Hidden || before.Hidden
			}
		}
		r.vars[e.Name] = v
		return
	}
	v.Value = Expand(e.Value, func(name string) (string, bool) {
		before, ok := r.vars[name]
		if !ok {
			v.Known = v.Known && len(r.Unread) == 0
			value, ok := r.sources.Services[name]
			return value, ok
		}
		v.Known, v.Hidden = v.Known && before.Known && !before.Maybe, v.Hidden || before.Hidden
		return before.Value, true
	})
	r.vars[e.Name] = v
}

// taken returns a variable that is taken from elsewhere; not there where that is optional and missing.
func (r *resolution) taken(name string, from *corev1.EnvVarSource) (v Variable, there bool) {
	v = Variable{Name: name}
	switch {
	case from.FieldRef != nil:
		v.Origin = "field " + from.FieldRef.FieldPath
		if r.sources.Field != nil {
			v.Value, v.Known = r.sources.Field(from.FieldRef.FieldPath)
		}
	case from.ResourceFieldRef != nil:
		v.Origin = "resource " + from.ResourceFieldRef.Resource
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		v.Origin = "configmap/" + ref.Name
		return r.keyed(v, r.sources.ConfigMap, ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		v.Origin, v.Hidden = "secret/"+ref.Name, true
		return r.keyed(v, r.sources.Secret, ref.Name, ref.Key, ref.Optional)
	case from.FileKeyRef != nil:
		v.Origin, v.Maybe = "file "+from.FileKeyRef.Path, from.FileKeyRef.Optional != nil && *from.FileKeyRef.Optional
	}
	return v, true
}

// keyed completes a variable that is taken from a key of an object.
func (r *resolution) keyed(v Variable, read func(string) (Object, bool), name, key string, optional *bool) (Variable, bool) {
	o, ok := object(read, name)
	may := optional != nil && *optional
	if o.Unread {
		v.Maybe = may
		return v, true
	}
	value, has := o.Data[key]
	if ok && has {
		v.Value, v.Known = value, !o.NamesOnly
		return v, true
	}
	if !may {
		missing := v.Origin
		if ok {
			missing += " key " + key
		}
		r.Missing = append(r.Missing, missing)
	}
	return v, !may
}
