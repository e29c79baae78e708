package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestAnExperiment_KnowsWhereAKeyPassed(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodRouted(hotrod.Frontend, hotrod.Customer, hotrod.Route)
	s.sandbox("fork", "deploy/customer", "--name=fast", "--image="+apps.HotrodFast)

	// The page is the frontend's own: it calls nobody.
	r := s.tested(2, "fast", "--id=o1", "--filename="+s.suite(
		suiteJob("page", "kubectl-sandbox.dev/services: frontend", "check", "http", "$(SANDBOX_URL)/"),
	))
	verdict := r.Variant("fast").Result("page").Verdict
	s.judged("page", verdict, experiment.Inconclusive, experiment.NotReached)
	if len(verdict.Reasons) == 0 || !strings.Contains(verdict.Reasons[0].Message, "last seen at deployment/frontend, in 1 request") {
		t.Errorf("it does not tell where the key was lost: %v", verdict.Reasons)
	}

	const key, dispatches = "observed-by-hand", 7
	s.observe("o1", key)
	before := s.observed("o1")
	if len(before[key]) > 0 {
		t.Fatalf("the key has passed already: %v", before)
	}
	address := s.address(hotrod.Frontend, "http")
	began := time.Now()
	for range dispatches {
		s.dispatch(address, key)
	}
	// Routers count a request as it passes, so who has his answers finds all of them counted.
	got := s.observed("o1")[key]
	if want := (map[string]uint64{"deployment.frontend": dispatches, "deployment.customer": dispatches, "deployment.route": dispatches * routesPerDispatch}); len(got) != len(want) {
		t.Errorf("observed %+v, want %v", got, want)
	} else {
		for workload, n := range want {
			o := got[workload]
			if o.Requests != n || o.Failed != 0 {
				t.Errorf("%s: %+v, want %d requests", workload, o, n)
			}
			if last := time.UnixMilli(o.Last); last.Before(began.Add(-time.Millisecond)) || last.After(time.Now()) {
				t.Errorf("%s: the last at %s, began at %s", workload, last, began)
			}
		}
	}
	if again := s.observed("o1")[key]; fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("counted twice: %v, then %v", got, again)
	}
}

// routesPerDispatch is how many routes HotROD's frontend asks for to find one driver.
const routesPerDispatch = 10

// observe has a key observed for an experiment, besides what it has observed already.
func (s *space) observe(id, key string) {
	s.t.Helper()
	configMaps := s.client.CoreV1().ConfigMaps(s.name)
	cm, err := configMaps.Get(s.t.Context(), sandbox.RunName(id), metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := sandbox.ParseObserve(cm.Data[sandbox.DataObserve])
	if err != nil {
		s.t.Fatal(err)
	}
	observe, err := sandbox.FormatObserve(append(keys, key))
	if err != nil {
		s.t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"data": {%q: %q}}`, sandbox.DataObserve, observe)
	if _, err := configMaps.Patch(s.t.Context(), cm.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// observed has what the routers observed for an experiment written down, and returns it.
func (s *space) observed(id string) (all route.Observed) {
	s.t.Helper()
	configMaps := s.client.CoreV1().ConfigMaps(s.name)
	nonce := fmt.Sprint(time.Now().UnixNano())
	patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, sandbox.AnnotationFlush, nonce)
	if _, err := configMaps.Patch(s.t.Context(), sandbox.RunName(id), types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		cm, err := configMaps.Get(s.t.Context(), sandbox.RunName(id), metav1.GetOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		if cm.Annotations[sandbox.AnnotationFlushed] == nonce {
			if missing := cm.Annotations[sandbox.AnnotationFlushMissing]; missing != "" {
				s.t.Errorf("routers are missing: %s", missing)
			}
			if err := json.Unmarshal([]byte(cm.Data[sandbox.DataObserved]), &all); err != nil {
				s.t.Fatalf("data.%s: %v", sandbox.DataObserved, err)
			}
			return all
		}
		if time.Now().After(end) {
			s.t.Fatalf("no answer to a flush: %v", cm.Annotations)
		}
	}
}

// dispatch orders a ride with a key. The frontend passes baggage on.
func (s *space) dispatch(address, key string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+address+"/dispatch?customer=123", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Baggage", sandbox.DefaultMember+"="+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s", resp.Status, b)
	}
}
