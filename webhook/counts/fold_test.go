package counts

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// web is a workload that is forked.
const web = "deployment.web"

func nobody(string) bool { return false }

func TestFold(t *testing.T) {
	totals, m := route.Totals{}, marks{}
	for i, step := range []struct {
		fork    string
		reports map[string]route.Count
		gone    func(string) bool
		want    uint64
		changed bool
	}{
		{"f", map[string]route.Count{"a": {Fork: 3}}, nobody, 3, true},
		{"f", map[string]route.Count{"a": {Fork: 3}}, nobody, 3, false},                  // nothing new
		{"f", map[string]route.Count{"a": {Fork: 5}, "b": {Fork: 10}}, nobody, 15, true}, // a second router
		{"f", nil, nobody, 15, false},                                                    // a new leader that knows no router yet
		{"f", map[string]route.Count{"a": {Fork: 6}}, nobody, 16, true},                  // ... and meets one again: no double
		{"f", map[string]route.Count{"a": {Fork: 2}}, nobody, 16, false},                 // nonsense: totals never fall
		{"f", nil, func(id string) bool { return id == "a" }, 16, true},                  // its pod is gone: the sum stays
		{"g", map[string]route.Count{"b": {Fork: 4}}, nobody, 20, true},                  // the sandbox forked the workload anew
	} {
		if got := fold(totals, m, web, step.fork, step.reports, step.gone); got != step.changed || totals[web].Fork != step.want {
			t.Errorf("step %d: changed %v, total %d, want %v, %d", i, got, totals[web].Fork, step.changed, step.want)
		}
	}
	if want := (marks{web: {"g", map[string]route.Count{"b": {Fork: 4}}}}); !cmp.Equal(m, want) {
		t.Errorf("marks %v, want %v", m, want)
	}
}

// Whatever the order of reports, restarts, failovers and lost writes: the sum is what routers counted and reported,
// exactly.
func TestFold_CountsEverythingOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type stored struct {
			Totals route.Totals
			Marks  marks
		}
		object, _ := json.Marshal(stored{route.Totals{}, marks{}}) // the ConfigMap
		routers := map[string]uint64{}                             // living routers' own totals
		reported := map[string]route.Count{}                       // what the leader was told
		var all uint64
		starts := 0
		write := func(lost bool) {
			var s stored
			if err := json.Unmarshal(object, &s); err != nil {
				t.Fatal(err)
			}
			fold(s.Totals, s.Marks, web, "f", reported, func(id string) bool {
				_, lives := routers[id]
				return !lives
			})
			if !lost {
				object, _ = json.Marshal(s)
				maps.DeleteFunc(reported, func(id string, _ route.Count) bool {
					_, lives := routers[id]
					return !lives
				})
			}
		}
		report := func() {
			for id, n := range routers {
				reported[id] = route.Count{Fork: n}
			}
		}
		pick := func() string {
			ids := make([]string, 0, len(routers))
			for id := range routers {
				ids = append(ids, id)
			}
			return rapid.SampledFrom(ids).Draw(t, "router")
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(*rapid.T) { starts++; routers[fmt.Sprint(starts)] = 0 },
			"serve": func(t *rapid.T) {
				if len(routers) == 0 {
					t.Skip()
				}
				n := uint64(rapid.IntRange(1, 9).Draw(t, "n"))
				routers[pick()] += n
				all += n
			},
			"report":     func(*rapid.T) { report() },
			"write":      func(*rapid.T) { write(false) },
			"lose write": func(*rapid.T) { write(true) },
			"failover":   func(*rapid.T) { reported = map[string]route.Count{}; report() },
			"stop": func(t *rapid.T) { // in order: it reports, and that is written before the leader changes
				if len(routers) == 0 {
					t.Skip()
				}
				report()
				delete(routers, pick())
				write(false)
			},
		})
		report()
		write(false)
		var s stored
		_ = json.Unmarshal(object, &s)
		if s.Totals[web].Fork != all {
			t.Fatalf("sum %d, routers counted %d", s.Totals[web].Fork, all)
		}
		if len(s.Marks[web].Routers) > len(routers) {
			t.Fatalf("%d marks for %d routers", len(s.Marks[web].Routers), len(routers))
		}
	})
}

func TestGoneRouters(t *testing.T) {
	pods := []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{UID: "known"}}, {ObjectMeta: metav1.ObjectMeta{UID: "unknown"}}}
	gone := goneRouters(pods, map[types.UID]string{"known": RouterID("known", "now")})
	for id, want := range map[string]bool{
		RouterID("known", "now"):      false,
		RouterID("known", "before"):   true,  // it started anew in the same pod
		RouterID("unknown", "any"):    false, // not back since the failover
		RouterID("deleted pod", "s1"): true,
		"":                            true,
	} {
		if gone(id) != want {
			t.Errorf("%q: gone %v, want %v", id, gone(id), want)
		}
	}
}
