package fork_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// pod returns a template whose spec is that YAML.
func pod(t testing.TB, spec string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(spec), &m); err != nil {
		t.Fatal(err)
	}
	return clone(t, map[string]any{"spec": m})
}

// diffCase is a change of a pod template, and what it does to a newer one.
type diffCase struct {
	name, from, to string
	patch          string // without tests
	newer, want    string // want empty: a conflict with the message
	conflict       string
}

func (tt diffCase) check(t *testing.T) {
	from, to := pod(t, tt.from), pod(t, tt.to)
	patch, err := fork.Diff(from, to)
	if err != nil {
		t.Fatal(err)
	}
	var ops []struct{ Op, Path string }
	if err := yaml.Unmarshal(patch, &ops); err != nil {
		t.Fatal(err)
	}
	var does []string
	for _, op := range ops {
		if op.Op != "test" {
			does = append(does, op.Op+" "+op.Path)
		}
	}
	if got := strings.Join(does, ", "); got != tt.patch {
		t.Errorf("the patch is %s", patch)
	}
	if got, err := fork.Apply(from, patch); err != nil || !reflect.DeepEqual(got, to) {
		t.Errorf("laid on where it came from, %s gives %v, %v", patch, got, err)
	}
	got, err := fork.Apply(pod(t, tt.newer), patch)
	if tt.conflict != "" {
		var c *fork.ConflictError
		if !errors.As(err, &c) || c.Error() != tt.conflict {
			t.Errorf("got %v, %v, want the conflict %s", got, err, tt.conflict)
		}
		return
	}
	if want := pod(t, tt.want); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s gives %v, %v", patch, got, err)
	}
}

// Each difference is as small as it can be, and means the same on a newer baseline.
func TestDiff_OnANewerBaseline(t *testing.T) {
	for _, tt := range []diffCase{
		{
			name:  "a variable removed from the middle",
			from:  `containers: [{name: api, env: [{name: A, value: "1"}, {name: B, value: "2"}, {name: C, value: "3"}]}]`,
			to:    `containers: [{name: api, env: [{name: A, value: "1"}, {name: C, value: "3"}]}]`,
			patch: `remove /spec/containers/0/env/1`,
			newer: `containers: [{name: api, env: [{name: A, value: "x"}, {name: B, value: "y"}]}]`,
			want:  `containers: [{name: api, env: [{name: A, value: "x"}]}]`,
		},
		{
			name:  "a variable added where the baseline added one as well",
			from:  `containers: [{name: api, env: [{name: A, value: "1"}]}]`,
			to:    `containers: [{name: api, env: [{name: A, value: "1"}, {name: B, value: "2"}]}]`,
			patch: `add /spec/containers/0/env/-`,
			newer: `containers: [{name: api, env: [{name: A, value: "1"}, {name: N, value: "n"}]}]`,
			want:  `containers: [{name: api, env: [{name: A, value: "1"}, {name: N, value: "n"}, {name: B, value: "2"}]}]`,
		},
		{
			name:  "a variable added that the baseline has by now",
			from:  `containers: [{name: api, env: [{name: A, value: "1"}]}]`,
			to:    `containers: [{name: api, env: [{name: A, value: "1"}, {name: B, value: "2"}]}]`,
			patch: `add /spec/containers/0/env/-`,
			newer: `containers: [{name: api, env: [{name: B, value: "3"}]}]`,
			want:  `containers: [{name: api, env: [{name: B, value: "2"}]}]`,
		},
		{
			name:  "a container in front",
			from:  `containers: [{name: api}]`,
			to:    `containers: [{name: first}, {name: api}]`,
			patch: `add /spec/containers/0`,
			newer: `containers: [{name: other}]`,
			want:  `containers: [{name: first}, {name: other}]`,
		},
		{
			name:  "args are one value",
			from:  `containers: [{name: api, args: [--a, --b, --c]}]`,
			to:    `containers: [{name: api, args: [--a, --x, --c]}]`,
			patch: `replace /spec/containers/0/args`,
			newer: `containers: [{name: api, args: [--new, --a, --b, --c]}]`,
			want:  `containers: [{name: api, args: [--a, --x, --c]}]`,
		},
		{
			name:  "a mount of a volume that is mounted twice",
			from:  `containers: [{name: api, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /b}]}]`,
			to:    `containers: [{name: api, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /b, readOnly: true}]}]`,
			patch: `add /spec/containers/0/volumeMounts/1/readOnly`,
			newer: `containers: [{name: api, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /b}, {name: v, mountPath: /c}]}]`,
			want:  `containers: [{name: api, volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /b, readOnly: true}, {name: v, mountPath: /c}]}]`,
		},
		{
			name:  "a port of two protocols",
			from:  `containers: [{name: dns, ports: [{name: tcp, containerPort: 53}, {name: udp, containerPort: 53, protocol: UDP}]}]`,
			to:    `containers: [{name: dns, ports: [{name: tcp, containerPort: 53}]}]`,
			patch: `remove /spec/containers/0/ports/1`,
			newer: `containers: [{name: dns, ports: [{name: tcp, containerPort: 53}, {name: udp, containerPort: 53, protocol: UDP}, {name: m, containerPort: 9}]}]`,
			want:  `containers: [{name: dns, ports: [{name: tcp, containerPort: 53}, {name: m, containerPort: 9}]}]`,
		},
		{
			name:  "tolerations have no key",
			from:  `tolerations: [{key: a}]`,
			to:    `tolerations: [{key: a}, {key: b}]`,
			patch: `replace /spec/tolerations`,
			newer: `tolerations: [{key: z}]`,
			want:  `tolerations: [{key: a}, {key: b}]`,
		},
		{
			name:  "a container renamed is another",
			from:  `containers: [{name: a, image: x}, {name: b}]`,
			to:    `containers: [{name: c, image: x}, {name: b}]`,
			patch: `remove /spec/containers/0, add /spec/containers/0`,
			newer: `containers: [{name: a}, {name: b, image: new}]`,
			want:  `containers: [{name: c, image: x}, {name: b, image: new}]`,
		},
		{
			name:  "another order",
			from:  `containers: [{name: a}, {name: b}]`,
			to:    `containers: [{name: b}, {name: a}]`,
			patch: `replace /spec/containers`,
			newer: `containers: [{name: a}, {name: b}]`,
			want:  `containers: [{name: b}, {name: a}]`,
		},
		{
			name:  "what was removed is gone",
			from:  `{nodeName: x, containers: []}`,
			to:    `containers: []`,
			patch: `remove /spec/nodeName`,
			newer: `containers: []`,
			want:  `containers: []`,
		},
	} {
		t.Run(tt.name, tt.check)
	}
}

func TestDiff_ConflictsWithANewerBaseline(t *testing.T) {
	for _, tt := range []diffCase{
		{
			name:     "a port that came",
			from:     `containers: [{name: api, ports: [{containerPort: 80}]}]`,
			to:       `containers: [{name: api, ports: [{containerPort: 80, name: http}]}]`,
			patch:    `add /spec/containers/0/ports/0/name`,
			newer:    `containers: [{name: api, ports: [{containerPort: 8080}]}]`,
			conflict: `spec.containers[api].ports[80] is gone`,
		},
		{
			name:     "what was added to is gone",
			from:     `{securityContext: {}}`,
			to:       `{securityContext: {runAsUser: 1}}`,
			patch:    `add /spec/securityContext/runAsUser`,
			newer:    `{}`,
			conflict: `spec.securityContext is gone`,
		},
	} {
		t.Run(tt.name, tt.check)
	}
}
