package routes

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var revisions = map[types.UID]int64{"rs1": 1, "rs2": 2, "rs3": 3}

// deployment makes a fork's Deployment that is age minutes old.
func deployment(sandboxName, key string, age int) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name: "api-" + sandboxName, Namespace: "shop", UID: types.UID("uid-of-" + sandboxName),
			CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-time.Duration(age) * time.Minute)),
			Labels:            map[string]string{sandbox.LabelSandbox: sandboxName, sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelWorkload: "deployment.api"},
			Annotations:       map[string]string{sandbox.AnnotationKey: key},
		},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](1)},
	}
}

// readyPod makes a pod of a fork whose containers are ready.
func readyPod(name, replicaSet string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID(name), OwnerReferences: []metav1.OwnerReference{{UID: types.UID(replicaSet)}},
			Annotations: map[string]string{sandbox.AnnotationPorts: "http=8080,grpc=9090"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "api", Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 8081, Protocol: corev1.ProtocolTCP}, {Name: "metrics", ContainerPort: 9100, Protocol: corev1.ProtocolTCP},
		}}}},
		Status: corev1.PodStatus{PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse},
		}},
	}
}

func with[T any](o *T, change func(*T)) *T {
	change(o)
	return o
}

func notReady(p *corev1.Pod) { p.Status.Conditions = nil }
func deleting(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }

// build makes the routes of forks, one sandbox each.
func build(forks ...Fork) (routes map[string]route.Fork, problems map[string]health.Claim) {
	c, routes, problems := newClaims(time.Now), map[string]route.Fork{}, map[string]health.Claim{}
	var changed []string
	for i := range forks {
		changed = append(changed, c.set(forks[i].Deployment.Labels[sandbox.LabelSandbox], &forks[i])...)
	}
	for _, key := range changed {
		if f, ok := c.route(key); ok {
			routes[key] = f
		}
	}
	for _, f := range forks {
		if p, ok := c.problem(f.Deployment.Labels[sandbox.LabelSandbox]); ok {
			problems[f.Deployment.Labels[sandbox.LabelSandbox]] = p
		}
	}
	return routes, problems
}

func TestBuild_ServingPods(t *testing.T) {
	for _, tt := range []struct {
		name string
		pods []*corev1.Pod
		want []string
	}{
		{"none", nil, nil},
		{"a pod whose gate is not True yet serves", []*corev1.Pod{readyPod("a", "rs1")}, []string{"a"}},
		{"in order of name", []*corev1.Pod{readyPod("b", "rs1"), readyPod("a", "rs1")}, []string{"a", "b"}},
		{"newest revision alone", []*corev1.Pod{readyPod("a", "rs1"), readyPod("b", "rs2"), readyPod("c", "rs1")}, []string{"b"}},
		{"by number, not by age or name", []*corev1.Pod{readyPod("a", "rs3"), readyPod("b", "rs2")}, []string{"a"}},
		{"broken update leaves the last good one", []*corev1.Pod{readyPod("a", "rs1"), with(readyPod("b", "rs2"), notReady)}, []string{"a"}},
		{"deleting pods do not serve", []*corev1.Pod{readyPod("a", "rs1"), with(readyPod("b", "rs2"), deleting)}, []string{"a"}},
		{"no address, no service", []*corev1.Pod{with(readyPod("a", "rs1"), func(p *corev1.Pod) { p.Status.PodIP = "" })}, nil},
		{"a ReplicaSet not seen yet is the oldest", []*corev1.Pod{readyPod("a", "rs1"), readyPod("b", "unseen")}, []string{"a"}},
		{"unless nothing else serves", []*corev1.Pod{readyPod("b", "unseen")}, []string{"b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			routes, problems := build(Fork{deployment("pr", "k", 0), tt.pods, revisions})
			var got []string
			for _, p := range routes["k"].Pods {
				got = append(got, p.Name)
			}
			if !slices.Equal(got, tt.want) || len(problems) != 0 {
				t.Errorf("got %v and problems %v, want %v", got, problems, tt.want)
			}
			if (len(got) == 0) != (routes["k"].Reason != "") {
				t.Errorf("pods %v with reason %q", got, routes["k"].Reason)
			}
		})
	}
}

func TestBuild_Fork(t *testing.T) {
	d := deployment("pr", "k", 0)
	d.Annotations[sandbox.AnnotationWhenUnready] = sandbox.WhenUnreadyBaseline
	routes, _ := build(Fork{d, []*corev1.Pod{readyPod("a", "rs1")}, revisions})
	want := map[string]route.Fork{"k": {
		Sandbox: "pr", Name: "api-pr", UID: "uid-of-pr", FallBack: true,
		// Captured ports only; grpc is not declared by this pod, so it is served on the baseline's number.
		Pods: []route.Pod{{Name: "a", UID: "a", IP: "10.0.0.1", Ports: map[string]uint16{"http": 8081}}},
	}}
	if diff := cmp.Diff(want, routes); diff != "" {
		t.Error(diff)
	}
}

func TestBuild_Problems(t *testing.T) {
	gone := deployment("gone", "free", 9)
	gone.DeletionTimestamp = ptr.To(metav1.Now())
	routes, problems := build(
		Fork{Deployment: deployment("young", "same", 1)}, Fork{Deployment: deployment("old", "same", 5)},
		Fork{Deployment: deployment("younger", "same", 0)}, Fork{Deployment: deployment("bad", "Not A Key", 0)},
		Fork{Deployment: gone}, Fork{Deployment: deployment("heir", "free", 0)},
	)
	if routes["same"].Sandbox != "old" || routes["free"].Sandbox != "heir" || len(routes) != 2 {
		t.Errorf("routes %v", routes)
	}
	if len(problems) != 3 || problems["young"].Code != health.KeyTaken || problems["younger"].Code != health.KeyTaken ||
		problems["bad"].Code != health.KeyInvalid {
		t.Errorf("problems %v", problems)
	}
	if want := `key "same" is taken by the older fork api-old of sandbox old`; problems["young"].Message != want {
		t.Errorf("message %q, want %q", problems["young"].Message, want)
	}
}

func TestReason(t *testing.T) {
	state := func(s corev1.ContainerState, last ...corev1.ContainerState) []*corev1.Pod {
		return []*corev1.Pod{with(readyPod("a", "rs1"), func(p *corev1.Pod) {
			notReady(p)
			cs := corev1.ContainerStatus{Name: "api", Image: "api:pr", State: s, Started: ptr.To(s.Running != nil)}
			if len(last) > 0 {
				cs.LastTerminationState = last[0]
			}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{cs}
		})}
	}
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	exited := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}
	for want, f := range map[string]Fork{
		"ScaledToZero: the fork is scaled to zero":                  {Deployment: with(deployment("pr", "k", 0), func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](0) })},
		"PodsNotCreated: the fork's pods have not been created yet": {},
		`QuotaExceeded: no pod can be created: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`: {
			Deployment: with(deployment("pr", "k", 0), func(d *appsv1.Deployment) {
				d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue,
					Message: `pods "api-1" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2`}}
			})},
		"PodsNotCreated: the fork's pods are being deleted, and no new one has been created yet": {Pods: []*corev1.Pod{with(readyPod("a", "rs1"), deleting)}},
		"PodUnschedulable: no node takes the pod: 0/1 nodes are available: 1 Insufficient cpu.": {Pods: []*corev1.Pod{with(readyPod("a", "rs1"), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available: 1 Insufficient cpu."}}
		})}},
		"PodEvicted: the pod was evicted: low on disk": {Pods: []*corev1.Pod{with(readyPod("a", "rs1"), func(p *corev1.Pod) {
			notReady(p)
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "low on disk"
		})}},
		`ImagePullFailed: image "api:pr" of container api can't be pulled: ImagePullBackOff`: {Pods: state(waiting("ImagePullBackOff", "Back-off pulling image"))},
		"ContainerCrashed: container api crashes: exit code 3": {
			Pods: state(waiting("CrashLoopBackOff", "back-off 10s restarting failed container=api pod=api-6d8f_shop(3f)"), exited)},
		`SecretNotFound: container api can't be started: secret "db" not found`: {Pods: state(waiting("CreateContainerConfigError", `secret "db" not found`))},
		"ContainerCrashed: container api crashes: exit code 3 ":                 {Pods: state(exited)},
		"ContainerNotReady: container api runs, and is not ready yet":           {Pods: state(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})},
		"ContainerCrashed: container api crashes: exit code 3  ":                {Pods: state(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, exited)},
		"PodStarting: container api is being created":                           {Pods: state(waiting("ContainerCreating", ""))},
	} {
		if f.Deployment == nil {
			f.Deployment = deployment("pr", "k", 0)
		}
		f.Revisions = revisions
		if got := reason(f, time.Now()); got != strings.TrimSpace(want) { // one text, in whatever state of the crash
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestReason_IsOneShortLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := line(rapid.String().Draw(t, "s"))
		if len(s) > maxReason {
			t.Fatalf("%d bytes", len(s))
		}
		for i := range len(s) {
			if s[i] < ' ' || s[i] > '~' {
				t.Fatalf("%q", s)
			}
		}
	})
}

// Whatever two tables, the difference makes the one of the other: the routers' tables never drift.
func TestDiff_ApplyMakesTheNewTable(t *testing.T) {
	table := rapid.Custom(func(t *rapid.T) map[string]route.Fork {
		return rapid.MapOf(rapid.StringMatching("[a-d]"), rapid.Custom(func(t *rapid.T) route.Fork {
			return route.Fork{
				Sandbox: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "sandbox"),
				Pods: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) route.Pod {
					return route.Pod{IP: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "ip"),
						Ports: rapid.SampledFrom([]map[string]uint16{nil, {"a": 1}, {"a": 2}}).Draw(t, "ports")}
				}), 0, 2).Draw(t, "pods"),
			}
		})).Draw(t, "routes")
	})
	rapid.Check(t, func(t *rapid.T) {
		from := &route.Table{Version: route.Version{Term: 1, Counter: 1}, Routes: table.Draw(t, "from")}
		to := &route.Table{Version: route.Version{Term: 1, Counter: 2}, Routes: table.Draw(t, "to")}
		d := Diff(from, to)
		got, ok := from.Apply(d)
		if !ok || got.Version != to.Version || !maps.EqualFunc(got.Routes, to.Routes, equal) {
			t.Fatalf("%+v applied gives %+v", d, got)
		}
		for key, f := range d.Set {
			if old, ok := from.Routes[key]; ok && equal(old, f) {
				t.Fatalf("key %q is sent and did not change", key)
			}
		}
	})
}

// However claims come, change and go, the table made by their deltas is the one that all claims, set at once, make; and
// every key has one route: the oldest claim's.
func TestClaims_DeltasMakeWhatAllClaimsMake(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, now := newClaims(time.Now), map[string]*Fork{}
		table := &route.Table{}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "sandbox")
				f := &Fork{Deployment: deployment(name, rapid.SampledFrom([]string{"k", "l", "Bad"}).Draw(t, "key"), rapid.IntRange(0, 2).Draw(t, "age")), Revisions: revisions}
				if rapid.Bool().Draw(t, "ready") {
					f.Pods = []*corev1.Pod{readyPod(name+"-pod", "rs1")}
				}
				if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
					f = nil
				}
				if now[name] = f; f == nil {
					delete(now, name)
				}
				if d := c.delta(table, c.set(name, f)); d != nil {
					d.Version.Counter = table.Version.Counter + 1
					table, _ = table.Apply(d)
				}
			},
			"": func(t *rapid.T) {
				fresh := newClaims(time.Now)
				var keys []string
				for name, f := range now {
					keys = append(keys, fresh.set(name, f)...)
				}
				want := &route.Table{}
				if d := fresh.delta(want, keys); d != nil {
					d.Version.Counter = 1
					want, _ = want.Apply(d)
				}
				if !maps.EqualFunc(table.Routes, want.Routes, equal) {
					t.Fatalf("have %v, want %v", table.Routes, want.Routes)
				}
				for name := range now {
					p, bad := c.problem(name)
					q, wantBad := fresh.problem(name)
					if bad != wantBad || p != q {
						t.Fatalf("%s: problem %v, want %v", name, p, q)
					}
				}
			},
		})
	})
}
