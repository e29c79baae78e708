package env_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
)

// The cases are those of Kubernetes' own expansion.
func TestExpand(t *testing.T) {
	values := map[string]string{"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}
	for in, want := range map[string]string{
		"$(VAR_A)":                   "A",
		"___$(VAR_B)___":             "___B___",
		"$(VAR_A)_$(VAR_B)":          "A_B",
		"$(VAR_REF)":                 "$(VAR_A)",
		"$$(VAR_REF)-$(VAR_A)":       "$(VAR_REF)-A",
		"f000-$$VAR_A":               "f000-$VAR_A",
		"foo\\$(VAR_C)bar":           "foo\\Cbar",
		"foo$$$(VAR_B)bar":           "foo$Bbar",
		"foo$$$$$$(VAR_A)bar":        "foo$$$(VAR_A)bar",
		"$(VAR_EMPTY)x":              "x",
		"$(NONE)":                    "$(NONE)",
		"$VAR_A":                     "$VAR_A",
		"$(VAR_A":                    "$(VAR_A",
		"$?_boo_$!":                  "$?_boo_$!",
		"$":                          "$",
		"$$":                         "$",
		"$()":                        "$()",
		"$($(VAR_B))":                "$($(VAR_B))",
		"one$(VAR_A)two$(VAR_Btail":  "oneAtwo$(VAR_Btail",
		"\xff$\xff":                  "\xff$\ufffd",
		"$(VAR_A)$(VAR_A)$":          "AA$",
		"--addr=$(VAR_A):$$(VAR_B)$": "--addr=A:$(VAR_B)$",
	} {
		if got := env.Expand(in, func(name string) (string, bool) { v, ok := values[name]; return v, ok }); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$(A)", "a$(A)b$$(B)$(", "$(A", "$\xff$(", "$()$$$(B)"} {
		f.Add(s, "v")
	}
	f.Fuzz(func(t *testing.T, s, v string) {
		none := func(string) (string, bool) { return "", false }
		if got := env.Rewrite(s, none); got != s {
			t.Errorf("rewritten by nothing, %q is %q", s, got)
		}
		if got := env.Expand(env.Literal(s), func(string) (string, bool) { return v, true }); got != s {
			t.Errorf("the literal of %q expands to %q", s, got)
		}
		seen := map[string]bool{}
		env.Expand(s, func(name string) (string, bool) { seen[name] = true; return v, true })
		names := env.References(s)
		if len(names) != len(seen) {
			t.Errorf("%q refers to %q, and is expanded by %v", s, names, seen)
		}
		for _, name := range names {
			if !seen[name] || !strings.Contains(s, env.Reference(name)) {
				t.Errorf("%q is said to refer to %q", s, name)
			}
		}
		renamed := env.Rewrite(s, func(name string) (string, bool) { return env.Reference("X" + name), true })
		if got := env.References(renamed); len(got) != len(names) {
			t.Errorf("%q refers to %q, and renamed, %q, to %q", s, names, renamed, got)
		}
	})
}

func sources() env.Sources {
	maps := map[string]env.Object{"cm": {Data: map[string]string{"A": "cm-a", "B": "cm-b"}}, "late": {Data: map[string]string{"B": "late-b"}}, "unread": {Unread: true}}
	secrets := map[string]env.Object{"s": {Data: map[string]string{"P": "secret"}}, "names": {Data: map[string]string{"HTTP_PROXY": ""}, NamesOnly: true}}
	return env.Sources{
		ConfigMap: func(name string) (env.Object, bool) { o, ok := maps[name]; return o, ok },
		Secret:    func(name string) (env.Object, bool) { o, ok := secrets[name]; return o, ok },
		Field:     func(path string) (string, bool) { return "pod-1", path == "metadata.name" },
		Services:  map[string]string{"API_SERVICE_HOST": "10.0.0.1", "A": "service-a"},
	}
}

func fromMap(name, prefix string) corev1.EnvFromSource {
	return corev1.EnvFromSource{Prefix: prefix, ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}
}

func fromSecret(name string) corev1.EnvFromSource {
	return corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}
}

func plain(name, value string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: value} }

func keyed(name, configMap, key string, optional bool) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap}, Key: key, Optional: ptr.To(optional)}}}
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name    string
		from    []corev1.EnvFromSource
		env     []corev1.EnvVar
		want    map[string]string // "?" stands for a value that is not known, "-" for no variable
		origin  map[string]string
		unread  []string
		missing []string
	}{
		{name: "envFrom, of which the later wins", from: []corev1.EnvFromSource{fromMap("cm", ""), fromMap("late", "")},
			want: map[string]string{"A": "cm-a", "B": "late-b", "API_SERVICE_HOST": "10.0.0.1"}, origin: map[string]string{"B": "configmap/late", "API_SERVICE_HOST": "service"}},
		{name: "a prefix", from: []corev1.EnvFromSource{fromMap("cm", "X_")}, want: map[string]string{"X_A": "cm-a", "A": "service-a"}},
		{name: "env over envFrom, in order", from: []corev1.EnvFromSource{fromMap("cm", "")},
			env:  []corev1.EnvVar{plain("U", "$(A)/$(B)"), plain("A", "own"), plain("V", "$(A)/$(B)")},
			want: map[string]string{"U": "cm-a/cm-b", "A": "own", "V": "own/cm-b"}},
		{name: "the last of a name", env: []corev1.EnvVar{plain("X", "1"), plain("Y", "$(X)"), plain("X", "$(X)2"), plain("Z", "$(X)")},
			want: map[string]string{"X": "12", "Y": "1", "Z": "12"}},
		{name: "a Service's, and what comes after", env: []corev1.EnvVar{plain("U", "$(API_SERVICE_HOST) $(LATER)"), plain("LATER", "x")},
			want: map[string]string{"U": "10.0.0.1 $(LATER)"}},
		{name: "an optional key that is missing leaves what there was", env: []corev1.EnvVar{plain("X", "1"), keyed("X", "cm", "none", true), keyed("N", "none", "x", true)},
			want: map[string]string{"X": "1", "N": "-"}},
		{name: "a key that is missing", env: []corev1.EnvVar{keyed("X", "cm", "none", false), keyed("Y", "none", "x", false)}, missing: []string{"configmap/cm key none", "configmap/none"}},
		{name: "a field", env: []corev1.EnvVar{
			{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			plain("U", "$(POD):$(IP)"), plain("W", "$(POD)")},
			want: map[string]string{"POD": "pod-1", "IP": "?", "U": "?", "W": "pod-1"}, origin: map[string]string{"POD": "field metadata.name"}},
		{name: "what may not be read", from: []corev1.EnvFromSource{fromMap("unread", ""), fromSecret("names")}, env: []corev1.EnvVar{plain("U", "$(WHO)"), keyed("K", "unread", "k", true)},
			want: map[string]string{"HTTP_PROXY": "?", "U": "?", "K": "?"}, unread: []string{"configmap/unread"}},
		{name: "nothing there", from: []corev1.EnvFromSource{fromMap("none", "")}, missing: []string{"configmap/none"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := env.Resolve(&corev1.Container{EnvFrom: tt.from, Env: tt.env}, sources())
			for name, want := range tt.want {
				v, ok := got.Lookup(name)
				is := v.Value
				if !ok {
					is = "-"
				} else if !v.Known {
					is = "?"
				}
				if is != want {
					t.Errorf("%s is %q, want %q", name, is, want)
				}
			}
			for name, want := range tt.origin {
				if v, _ := got.Lookup(name); v.Origin != want {
					t.Errorf("%s comes from %q, want %q", name, v.Origin, want)
				}
			}
			if !slices.Equal(got.Unread, tt.unread) || !slices.Equal(got.Missing, tt.missing) {
				t.Errorf("unread %q, missing %q", got.Unread, got.Missing)
			}
		})
	}
}

func TestResolve_ASecretsValueIsHidden(t *testing.T) {
	e := env.Resolve(&corev1.Container{EnvFrom: []corev1.EnvFromSource{fromSecret("s")}, Env: []corev1.EnvVar{plain("DSN", "pg://$(P)"), plain("OPEN", "x")}}, sources())
	for name, hidden := range map[string]bool{"P": true, "DSN": true, "OPEN": false, "API_SERVICE_HOST": false} {
		if v, ok := e.Lookup(name); !ok || v.Hidden != hidden {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if arg, known := e.Expand("--dsn=$(DSN) $$(P) $(NONE)"); arg != "--dsn=pg://secret $(P) $(NONE)" || !known {
		t.Errorf("the argument is %q, %t", arg, known)
	}
}

// Every variable that is known is so whatever the others are.
func TestResolve_OfAnyEnvironment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"A", "B", "C", "API_SERVICE_HOST"}
		var vars []corev1.EnvVar
		for range rapid.IntRange(0, 6).Draw(t, "variables") {
			vars = append(vars, plain(rapid.SampledFrom(names).Draw(t, "name"), rapid.StringMatching(`(\$|\(|\)|A|B|\$\(A\)|\$\(C\)|\$\$){0,5}`).Draw(t, "value")))
		}
		e := env.Resolve(&corev1.Container{Env: vars}, sources())
		if !slices.IsSortedFunc(e.Variables, func(a, b env.Variable) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("out of order: %v", e.Variables)
		}
		for _, v := range vars {
			if got, ok := e.Lookup(v.Name); !ok || !got.Known || got.Origin != "env" {
				t.Fatalf("%s is %+v", v.Name, got)
			}
		}
	})
}
