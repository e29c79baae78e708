package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// denied denies everything to the namespace's pods but what other policies admit.
const denied = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
`

// `fork` is ended at every request it makes: at those that change something by kill -9 as well, by a lost answer, and by a refusal. How
// many there are, and of what, is counted, not known: those that `fork` will make some day are among them.
func TestForkEndedAtAnyMomentLeavesNothingThatDeleteDoesNotRemove(t *testing.T) {
	t.Parallel()
	fork := func(name string) []string {
		return []string{"fork", "deploy/api", "sts/db", "--name=" + name, "--env=X=1", "--timeout=60s"}
	}
	isThere := func(s *space, name string) {
		if r := s.trySandbox("fork", "deploy/api", "--name="+name, "--env=X=0", "--replicas=0", "--wait=false"); r.err != nil {
			s.t.Errorf("%v", r)
		}
	}
	for _, test := range []struct {
		what    string
		prepare func(s *space, name string)
		writes  bool // only they are the moments
	}{
		{"a new sandbox", func(*space, string) {}, testing.Short()},
		{"a sandbox there is, one fork changed and one added", isThere, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.create(podinfo("api", 1), podinfoService("api"), stateful("db"), podinfoService("db"))
			s.applyYAML(admitPolicy + "---" + denied)
			s.available("api")
			s.sandbox("route", "deploy/api", "sts/db")
			s.available("api")
			ledger := s.newLedger(t)
			found, err := ledger.take(t.Context(), s.name)
			if err != nil {
				t.Fatal(err)
			}
			objects := s.snapshot()

			test.prepare(s, "whole")
			whole, seen := s.struck(fault{}, fork("whole")...)
			if whole.err != nil || seen.Writes < 3 || seen.Watches == 0 {
				t.Fatalf("without a fault: %+v: %v", seen, whole)
			}
			t.Logf("%d requests, %d of them writes, %d watches", seen.Requests, seen.Writes, seen.Watches)
			faults := moments(seen, test.writes)
			names := make([]string, len(faults))
			atOnce := make(chan struct{}, 3)
			var wg sync.WaitGroup
			for i, f := range faults {
				names[i] = fmt.Sprintf("%s-%s-%s-%d", f.How, f.When, f.Of, f.At)
				atOnce <- struct{}{}
				wg.Go(func() {
					defer func() { <-atOnce }()
					test.prepare(s, names[i])
					was, err := ledger.take(t.Context(), s.name)
					if err != nil {
						t.Error(err)
						return
					}
					r, report := s.struck(f, fork(names[i])...)
					s.heldBack(ledger, f, names[i], was, r, report)
				})
			}
			wg.Wait()
			s.removed(append(names, "whole"))
			ledger.restored(t, 60*time.Second, found, s.name)
			if now := s.snapshot(); now != objects {
				t.Errorf("objects differ:\n%s", difference(objects, now))
			}
		})
	}
}

// moments returns a fault for each moment of a run that made so many requests. Interrupts come at every request, or at writes and in
// the wait alone.
func moments(seen faultReport, writes bool) []fault {
	var all []fault
	for at := int64(1); at <= seen.Writes; at++ {
		for _, when := range []moment{before, during, after} {
			all = append(all, fault{Of: ofWrites, At: at, When: when, How: kill})
		}
		for _, how := range []blow{lose, refuse, breakDown} {
			all = append(all, fault{Of: ofWrites, At: at, When: during, How: how})
		}
		if writes {
			all = append(all, fault{Of: ofWrites, At: at, When: after, How: interrupt})
		}
	}
	if writes {
		return append(all, fault{Of: ofWatches, At: 1, When: after, How: interrupt})
	}
	for at := int64(1); at <= seen.Requests; at++ {
		all = append(all, fault{Of: ofAll, At: at, When: before, How: interrupt}, fault{Of: ofAll, At: at, When: after, How: interrupt})
	}
	return all
}

// heldBack judges how a command ended that could still do something about what befell it: it leaves nothing that was not there, or says
// how to remove it.
func (s *space) heldBack(l *ledger, f fault, name string, was inventory, r result, report faultReport) {
	s.t.Helper()
	switch {
	case report.Struck == "" && f.Of == ofAll:
		if r.err != nil { // it made fewer requests this time
			s.t.Errorf("%s: nothing befell it: %v", name, r)
		}
		return
	case report.Struck == "":
		s.t.Errorf("%s: nothing befell it: %v", name, r)
		return
	case r.err == nil && f.How == interrupt && strings.Contains(r.stdout, "routed"):
		return // it was done when the signal came
	case r.err == nil:
		s.t.Errorf("%s, at %s: it ended well: %v", name, report.Struck, r)
		return
	case f.How == kill || strings.Contains(r.stderr, "kubectl sandbox delete "+name):
		return
	}
	var left inventory
	err := wait.PollUntilContextTimeout(s.t.Context(), 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		now, err := l.take(ctx, s.name)
		if err != nil {
			return false, err
		}
		for object := range was {
			delete(now, object)
		}
		maps.DeleteFunc(now, func(object string, labels map[string]string) bool {
			// What Deployments make comes and goes after them: see ledger.restored.
			return labels[sandbox.LabelSandbox] != name || strings.Contains(object, " pods/") || strings.Contains(object, " replicasets.apps/")
		})
		left = now
		return len(left) == 0, nil
	})
	if err != nil {
		s.t.Errorf("%s, at %s: it left %v and does not say so (%v): %v", name, report.Struck, slices.Collect(maps.Keys(left)), err, r)
	}
}

// stateful returns podinfo as a StatefulSet.
func stateful(name string) *appsv1.StatefulSet {
	d := podinfo(name, 1)
	return &appsv1.StatefulSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.StatefulSetSpec{
		Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template, ServiceName: name,
	}}
}

// removed deletes sandboxes, each by its name as one does who was just interrupted.
func (s *space) removed(names []string) {
	s.t.Helper()
	var wg sync.WaitGroup
	atOnce := make(chan struct{}, 3)
	for _, name := range names {
		atOnce <- struct{}{}
		wg.Go(func() {
			defer func() { <-atOnce }()
			if r := s.trySandbox("delete", name, "--ignore-not-found"); r.err != nil { // some left nothing
				s.t.Errorf("%v", r)
			}
		})
	}
	wg.Wait()
}
