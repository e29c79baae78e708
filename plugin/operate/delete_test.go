package operate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// fakeSandboxes are the sandboxes of a namespace.
type fakeSandboxes struct {
	all     []sandboxes.Sandbox
	orphans []sandboxes.Sandbox // of which only policies are left

	deleted []string
	dry     bool
	delete  func(name string) error // nil: works

	left []string // what never goes
}

func (f *fakeSandboxes) Sandboxes(context.Context, string, string) ([]sandboxes.Sandbox, error) {
	return slices.Clone(f.all), nil
}

func (f *fakeSandboxes) SandboxesNamed(
	_ context.Context,
	names []string,
) (found []sandboxes.Sandbox, missing []string, err error) {
	for _, name := range names {
		if i := slices.IndexFunc(f.all, func(s sandboxes.Sandbox) bool { return s.Name == name }); i >= 0 {
			found = append(found, f.all[i])
		} else {
			missing = append(missing, name)
		}
	}
	return found, missing, nil
}

func (f *fakeSandboxes) WithPolicies(_ context.Context, all []sandboxes.Sandbox) ([]sandboxes.Sandbox, error) {
	return append(all, f.orphans...), nil
}

func (f *fakeSandboxes) Delete(_ context.Context, s *sandboxes.Sandbox, dryRun bool) error {
	if f.delete != nil {
		if err := f.delete(s.Name); err != nil {
			return err
		}
	}
	f.deleted, f.dry = append(f.deleted, s.Name), dryRun
	return nil
}

func (f *fakeSandboxes) WaitDeleted(ctx context.Context, _ []string) ([]string, error) {
	if len(f.left) == 0 {
		return nil, nil
	}
	<-ctx.Done()
	return f.left, ctx.Err()
}

func namesOf(all []sandboxes.Sandbox) string {
	var names []string
	for i := range all {
		names = append(names, all[i].Name)
	}
	return strings.Join(names, ",")
}

func TestDelete_Selects(t *testing.T) {
	for _, tt := range []struct {
		name    string
		o       DeleteOptions
		deleted string
		problem string
	}{
		{"all, and what only policies are left of", DeleteOptions{}, "a,b,gone", ""},
		{"by labels, which policies lack", DeleteOptions{Selection: Selection{Selector: "team=x"}}, "a,b", ""},
		{"by name", DeleteOptions{Selection: Selection{Names: []string{"b"}}}, "b", ""},
		{"by a name that is missing", DeleteOptions{Selection: Selection{Names: []string{"b", "c"}}}, "b",
			`there is no sandbox "c"`},
		{"by a name that may be missing",
			DeleteOptions{Selection: Selection{Names: []string{"b", "c"}}, IgnoreNotFound: true}, "b", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeSandboxes{all: []sandboxes.Sandbox{{Name: "a"}, {Name: "b"}}, orphans: []sandboxes.Sandbox{{Name: "gone"}}}
			d := Delete{Read: f, Write: f, Wait: f}
			deleted, done, err := d.Run(t.Context(), tt.o)
			if !done || namesOf(deleted) != tt.deleted || strings.Join(f.deleted, ",") != tt.deleted {
				t.Errorf("got %s (done: %t), deleted %q", namesOf(deleted), done, f.deleted)
			}
			if tt.problem != "" {
				wantProblem(t, err, tt.problem)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDelete_SaysWhatAnInterruptLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeSandboxes{all: []sandboxes.Sandbox{{Name: "a"}, {Name: "b"}}, delete: func(string) error { cancel(); return nil }}
	d := Delete{Read: f, Write: f, Wait: f}
	deleted, done, err := d.Run(ctx, DeleteOptions{})
	if p := wantProblem(
		t,
		err,
		"interrupted; 1 of 2 sandboxes are deleted",
	); !done || namesOf(deleted) != "a" ||
		p.Code != status.CodeInterrupted {
		t.Errorf("got %s (done: %t), code %s", namesOf(deleted), done, p.Code)
	}
}

func TestDelete_StopsAtAFailure(t *testing.T) {
	f := &fakeSandboxes{
		all:    []sandboxes.Sandbox{{Name: "a"}, {Name: "b"}},
		delete: func(string) error { return errors.New("no") },
	}
	d := Delete{Read: f, Write: f, Wait: f}
	if deleted, done, err := d.Run(t.Context(), DeleteOptions{}); done || deleted != nil || err == nil {
		t.Errorf("got %v (done: %t), error %v", deleted, done, err)
	}
}

func TestDelete_NamesWhatIsLeftWhenItsWaitEnds(t *testing.T) {
	for _, tt := range []struct {
		name      string
		interrupt time.Duration
		want      string
		code      string
	}{
		{"at the timeout", time.Hour, "deletion goes on after 2m0s (--timeout); still there: pod/a-1", status.CodeTimedOut},
		{"by an interrupt", time.Second, "interrupted; deletion goes on; still there: pod/a-1", status.CodeInterrupted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(tt.interrupt, cancel)
				f := &fakeSandboxes{all: []sandboxes.Sandbox{{Name: "a"}}, left: []string{"pod/a-1"}}
				d := Delete{Read: f, Write: f, Wait: f}
				_, done, err := d.Run(ctx, DeleteOptions{Wait: true, Timeout: 2 * time.Minute})
				if p := wantProblem(t, err, tt.want); done || p.Code != tt.code {
					t.Errorf("done: %t, code %s", done, p.Code)
				}
			})
		})
	}
}

func TestDelete_DeletesNothingInADryRun(t *testing.T) {
	for dryRun, writes := range map[DryRun]int{DryRunClient: 0, DryRunServer: 1} {
		f := &fakeSandboxes{all: []sandboxes.Sandbox{{Name: "a"}}, left: []string{"pod/a-1"}}
		d := Delete{Read: f, Write: f, Wait: f}
		deleted, done, err := d.Run(t.Context(), DeleteOptions{Wait: true, DryRun: dryRun})
		if err != nil || !done || namesOf(deleted) != "a" || len(f.deleted) != writes || writes > 0 && !f.dry {
			t.Errorf("%d: got %s, %d writes, dry: %t, error %v", dryRun, namesOf(deleted), len(f.deleted), f.dry, err)
		}
	}
}
