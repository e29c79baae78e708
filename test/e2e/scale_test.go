package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A scale is how much is asked of the cluster at once.
type scale struct {
	namespaces, baselines, callers, forks int // of all namespaces together
}

// beyondQuota is how many more forks are asked for than the quota of the first namespace admits.
const beyondQuota = 4

// The long form, `make scale`, is 300 forks of 20 baselines. Its routers request less than by default: the node has two cores, and
// the scheduler goes by requests. Nothing else runs on the cluster meanwhile: these tests are not parallel.
func TestManyForksByManyCallersAtOnceAreAllRoutedAndLeaveNothing(t *testing.T) {
	size := scale{namespaces: 4, baselines: 8, callers: 4, forks: 40}
	if os.Getenv("E2E_SCALE") != "" {
		size = scale{namespaces: 10, baselines: 20, callers: 10, forks: 300}
		lightRouters(t)
	}
	spaces := make([]*space, size.namespaces)
	names := make([]string, len(spaces))
	each(len(spaces), func(i int) {
		spaces[i] = newSpace(t)
		names[i] = spaces[i].name
	})
	workloads := make([]string, size.baselines/size.namespaces)
	for i := range workloads {
		workloads[i] = fmt.Sprintf("api-%d", i)
	}
	each(len(spaces), func(i int) { spaces[i].populate(workloads, size.callers) })
	share := size.forks / size.namespaces
	quota := corev1.ResourceName("count/deployments.apps")
	_, err := shared.client.CoreV1().ResourceQuotas(names[0]).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "forks"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{quota: *resource.NewQuantity(int64(len(workloads)+share), resource.DecimalSI)}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	ledger := shared.newLedger(t)
	found, err := ledger.take(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}

	all := make([]forkMade, size.forks+beyondQuota)
	start := time.Now()
	each(len(all), func(i int) {
		m := &all[i]
		m.in = spaces[i%len(spaces)]
		if i >= size.forks {
			m.in = spaces[0]
		}
		m.workload, m.sandbox = workloads[i/len(spaces)%len(workloads)], fmt.Sprintf("s-%d", i)
		caller := fmt.Sprintf("caller-%d", (i+i/len(spaces))%size.callers)
		m.result = m.in.trySandbox(append(as(caller+"@example.test"), "fork", "deploy/"+m.workload, "--name="+m.sandbox, "--key=key-"+m.sandbox,
			"--env=PODINFO_UI_MESSAGE="+m.sandbox, "--timeout=10m")...)
	})
	t.Logf("all ended after %s", time.Since(start).Round(time.Millisecond))

	all = routedBut(t, all, spaces[0], size.forks)
	ours := gaps(spaces)
	if len(ours) > 0 {
		t.Logf("from ready containers to routed, in whole seconds: median %s, most %s", ours[len(ours)/2], ours[len(ours)-1])
	}
	eachAnswersByKey(t, all, len(spaces))

	start = time.Now()
	each(len(spaces), func(i int) {
		args := append(as(fmt.Sprintf("caller-%d@example.test", i%size.callers)), "delete", "--all", "--timeout=10m")
		if r := spaces[i].trySandbox(args...); r.err != nil {
			t.Errorf("%v", r)
		}
	})
	t.Logf("all deleted after %s", time.Since(start).Round(time.Millisecond))
	ledger.restored(t, 2*time.Minute, found, names...)
}

// A forkMade is a fork that a caller asked for, and what came of it.
type forkMade struct {
	in                *space
	workload, sandbox string
	result            result
}

// routedBut returns the forks that are routed: all but those that the quota of one namespace refused.
func routedBut(t *testing.T, all []forkMade, limited *space, forks int) []forkMade {
	t.Helper()
	refused := 0
	var took []time.Duration
	all = slices.DeleteFunc(all, func(m forkMade) bool {
		switch {
		case m.result.err == nil:
			took = append(took, m.result.took)
			return false
		case m.in == limited && strings.Contains(m.result.stderr, "exceeded quota: forks"):
			refused++
		default:
			t.Errorf("%v", m.result)
		}
		return true
	})
	if refused != beyondQuota || len(all) != forks {
		t.Errorf("%d were routed, want %d; the quota refused %d, want %d", len(all), forks, refused, beyondQuota)
	}
	if len(took) > 0 {
		slices.Sort(took)
		t.Logf("one fork took from %s to %s, median %s", took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond))
	}
	return all
}

// eachAnswersByKey asks every fork by each carrier of its key, and its baseline without one and with that of the fork that comes
// apart places later.
func eachAnswersByKey(t *testing.T, all []forkMade, apart int) {
	t.Helper()
	each(len(all), func(i int) {
		m := &all[i]
		c := newH1(m.in.address(m.workload, "http"))
		defer c.close()
		for _, carry := range carriers("key-" + m.sandbox) {
			if a, err := c.call(t.Context(), carry); err != nil || a.Message != m.sandbox || !strings.HasPrefix(a.ServedBy, m.workload+"-"+m.sandbox+"-") {
				t.Errorf("%s of %s in %s, by %s: %+v, %v", m.sandbox, m.workload, m.in.name, carry.name, a, err)
			}
		}
		// No key, and that of a fork of another workload: the baseline.
		other := all[(i+apart)%len(all)]
		keys := []carrier{{}}
		if other.workload != m.workload || other.in != m.in {
			keys = append(keys, carriers("key-" + other.sandbox)[0])
		}
		for _, carry := range keys {
			if a, err := c.call(t.Context(), carry); err != nil || a.Message != baselineMessage {
				t.Errorf("%s in %s with %+v: %+v, %v", m.workload, m.in.name, carry, a, err)
			}
		}
	})
}

// gaps returns, in order, how long it took from the readiness of each fork's containers to its gate: the product's own share of the time.
func gaps(spaces []*space) []time.Duration {
	var all []time.Duration
	for _, s := range spaces {
		for _, p := range s.pods(sandbox.LabelRole + "=" + sandbox.RoleFork) {
			at := map[corev1.PodConditionType]time.Time{}
			for _, c := range p.Status.Conditions {
				at[c.Type] = c.LastTransitionTime.Time
			}
			all = append(all, at[sandbox.ConditionRouted].Sub(at[corev1.ContainersReady]))
		}
	}
	slices.Sort(all)
	return all
}

// each runs do for every index at once, and waits for all.
func each(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// populate makes routed baselines of one pod each, and lets the callers fork them.
func (s *space) populate(workloads []string, callers int) {
	s.t.Helper()
	for _, name := range workloads {
		s.create(podinfo(name, 1, small), podinfoService(name))
	}
	for i := range callers {
		s.grant("sandbox-user", fmt.Sprintf("caller-%d", i))
	}
	args := []string{"route"}
	for _, name := range workloads {
		s.available(name)
		args = append(args, "deploy/"+name)
	}
	s.sandbox(args...)
	for _, name := range workloads {
		s.available(name)
		s.serving(s.address(name, "http"))
	}
}

// small has a pod request next to nothing.
func small(d *appsv1.Deployment) {
	d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
	}
}

// lightRouters has routers request next to nothing, until the test ends.
func lightRouters(t *testing.T) {
	t.Helper()
	s := newSpace(t)
	values := s.values()
	upgrade := func(set ...string) {
		s.helm(slices.Concat([]string{"upgrade", s.helmRelease(), s.chart(), "--values=" + values, "--wait", "--timeout=90s"}, set)...)
	}
	t.Cleanup(func() { upgrade() })
	upgrade("--set=router.resources.requests.cpu=1m", "--set=router.resources.requests.memory=8Mi")
}
