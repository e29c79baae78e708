package env

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// An Object is a ConfigMap or Secret that provides variables.
type Object struct {
	// Data holds its values by key.
	Data map[string]string
	// NamesOnly means that the keys are known and the values are not.
	NamesOnly bool
	// Unread means that nothing is known about it.
	Unread bool
}

// Sources provide the values of variables. A nil function knows nothing.
type Sources struct {
	// ConfigMap and Secret return the object with a name; false if there is none.
	ConfigMap, Secret func(name string) (Object, bool)
	// Field returns the value of a field of the pod by its path, such as metadata.name; false if it is unknown.
	Field func(path string) (string, bool)
	// Services are the variables that the kubelet sets for the namespace's Services, and for the API server's.
	Services map[string]string
}

// A Variable is one of a container's process.
type Variable struct {
	Name  string
	Value string
	// Known means that Value is the value. Otherwise the process has the variable with an unknown value.
	Known bool
	// Maybe means that it is not known whether the process has the variable.
	Maybe bool
	// Origin is its source: "env", "configmap/NAME", "secret/NAME", "field PATH", "resource NAME", "file PATH" or
	// "service".
	Origin string
	// Hidden means that the value comes from a Secret, at least in part.
	Hidden bool
}

// An Environment is that of one container.
type Environment struct {
	Variables []Variable // sorted by name
	// Unread are the unknown objects of envFrom, as "configmap/NAME" and "secret/NAME": the process may have further
	// variables.
	Unread []string
	// Missing are required objects and keys that do not exist: the kubelet does not start the container.
	Missing []string
}

// Lookup returns the variable with a name.
func (e *Environment) Lookup(name string) (Variable, bool) {
	at, ok := slices.BinarySearchFunc(e.Variables, name, func(v Variable, name string) int { return strings.Compare(v.Name, name) })
	if !ok {
		return Variable{}, false
	}
	return e.Variables[at], true
}

// Expand returns s, an argument or a word of the command, as the process gets it; false if a value in it is unknown.
func (e *Environment) Expand(s string) (string, bool) {
	known := true
	expanded := Expand(s, func(name string) (string, bool) {
		v, ok := e.Lookup(name)
		known = known && (!ok || v.Known) && (ok || len(e.Unread) == 0)
		return v.Value, ok
	})
	return expanded, known
}

// A resolution builds an environment.
type resolution struct {
	sources Sources
	vars    map[string]Variable
	*Environment
}

// Resolve returns the environment of a container as the kubelet builds it. envFrom comes first, and later entries win.
// Then comes env in its order: each entry sees those before it, and the last of a name wins. A Service's
// variable is set only if the name is free.
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
			return // optional and missing: an earlier value of the name stays
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

// taken returns a variable from another source; there is false if the source is optional and missing.
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

// keyed completes a variable from a key of an object.
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
