package operate

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// fakeExtensions answers writes of extensions with errors, in order; after the last one, writes succeed. Before each
// error, somebody else changes the sandbox.
type fakeExtensions struct {
	fakeSandboxes
	errs   []error
	change func(*sandboxes.Sandbox)

	versions []string // of the ConfigMaps that were written
}

func (f *fakeExtensions) DefaultTTL(context.Context) (*time.Duration, error) { return nil, nil }

func (f *fakeExtensions) ApplyExtension(
	_ context.Context,
	s *sandboxes.Sandbox,
	e *sandboxes.Extension,
	_ bool,
) (*corev1.ConfigMap, error) {
	f.versions = append(f.versions, s.ConfigMap.ResourceVersion)
	if len(f.errs) == 0 {
		return e.Extended(), nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	if f.change != nil {
		f.change(&f.all[0])
	}
	return nil, err
}

func expiring(name string, at time.Time) sandboxes.Sandbox {
	return sandboxes.Sandbox{Name: name, Namespace: "shop", Expires: at, ConfigMap: &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "sandbox-" + name,
			Namespace:       "shop",
			UID:             types.UID("uid-" + name),
			ResourceVersion: "1",
		},
		Data: map[string]string{sandbox.DataExpires: at.Format(time.RFC3339)},
	}}
}

func TestExtend_ReadsAgainWhatHasChanged(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	newer := func(s *sandboxes.Sandbox) {
		cm := s.ConfigMap.DeepCopy()
		version, _ := strconv.Atoi(cm.ResourceVersion)
		cm.ResourceVersion = strconv.Itoa(version + 1)
		s.ConfigMap = cm
	}
	for _, tt := range []struct {
		name     string
		errs     []error
		change   func(*sandboxes.Sandbox)
		versions int
		problem  string // of the sandbox; empty: it is extended
		fails    bool
	}{
		{"nothing", nil, nil, 1, "", false},
		{"a newer version", []error{conflict()}, newer, 2, "", false},
		{"newer versions without end", slices.Repeat([]error{conflict()}, maxExtensions), newer, maxExtensions, "", true},
		{"another of that name", []error{conflict()}, func(s *sandboxes.Sandbox) {
			s.ConfigMap = s.ConfigMap.DeepCopy()
			s.ConfigMap.UID = "another"
		}, 1, `there is no sandbox "pr-42"`, true},
		{"another failure", []error{errors.New("no")}, nil, 1, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeExtensions{errs: tt.errs, change: tt.change}
			f.all = []sandboxes.Sandbox{expiring("pr-42", now.Add(time.Hour))}
			e := Extend{Read: f, Write: f}
			done, found, err := e.Run(t.Context(), ExtendOptions{Now: now, TTL: new(2 * time.Hour)})
			if (err != nil) != tt.fails || found != 1 || len(f.versions) != tt.versions || done == nil ||
				len(done) == 0 != tt.fails {
				t.Errorf("got %v of %d, versions %q, error %v", done, found, f.versions, err)
			}
			if tt.problem != "" {
				wantProblem(t, err, tt.problem)
			}
			if !tt.fails && done[0].ConfigMap.Data[sandbox.DataExpires] != "2026-03-01T12:00:00Z" {
				t.Errorf("expires at %s", done[0].ConfigMap.Data[sandbox.DataExpires])
			}
		})
	}
}

func TestExtend_ReturnsWhatWasDoneBeforeAFailure(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	f := &fakeExtensions{}
	f.all = []sandboxes.Sandbox{expiring("a", now), expiring("b", now)}
	w := failSecond{f, new(int)}
	e := Extend{Read: f, Write: w}
	done, found, err := e.Run(t.Context(), ExtendOptions{Now: now, TTL: new(time.Hour)})
	if err == nil || found != 2 || len(done) != 1 || done[0].Sandbox.Name != "a" {
		t.Errorf("got %v of %d, error %v", done, found, err)
	}
}

type failSecond struct {
	ExtendWriter
	writes *int
}

func (w failSecond) ApplyExtension(
	ctx context.Context,
	s *sandboxes.Sandbox,
	e *sandboxes.Extension,
	dryRun bool,
) (*corev1.ConfigMap, error) {
	if *w.writes++; *w.writes > 1 {
		return nil, errors.New("no")
	}
	return w.ExtendWriter.ApplyExtension(ctx, s, e, dryRun)
}

func TestExtend_ChangesNothingIfOneIsBeingDeleted(t *testing.T) {
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	f := &fakeExtensions{}
	f.all = []sandboxes.Sandbox{expiring("a", now), expiring("b", now)}
	f.all[1].ConfigMap.DeletionTimestamp = new(metav1.NewTime(now))
	e := Extend{Read: f, Write: f}
	done, found, err := e.Run(t.Context(), ExtendOptions{Now: now, TTL: new(time.Hour)})
	wantProblem(t, err, `sandbox "b" is being deleted`)
	if done != nil || found != 2 || len(f.versions) > 0 {
		t.Errorf("got %v of %d, %d writes", done, found, len(f.versions))
	}
}

func TestExtend_NamesWhatIsMissing(t *testing.T) {
	f := &fakeExtensions{}
	e := Extend{Read: f, Write: f}
	done, found, err := e.Run(
		t.Context(),
		ExtendOptions{Selection: Selection{Namespace: "shop", Names: []string{"a", "b"}}},
	)
	wantProblem(t, err, `there is no sandbox "a" in namespace "shop"`)
	if done != nil || found >= 0 {
		t.Errorf("got %v of %d", done, found)
	}
}
