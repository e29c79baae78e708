package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestWithABaselinesRouterFrozenTheForkIsNotAvailableAndIsWithin2sOfItsThaw(t *testing.T) {
	for _, c := range []struct {
		name string
		mend func(*space, corev1.Pod, int)
	}{
		{"thawed", func(_ *space, _ corev1.Pod, pid int) { _ = syscall.Kill(pid, syscall.SIGCONT) }},
		{"its pod deleted", func(s *space, pod corev1.Pod, _ int) {
			// At once, as of a dead node: nobody waits for a frozen process to end in good order.
			s.kubectl("delete", "pod", pod.Name, "--force", "--grace-period=0")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.create(podinfo("api", 2), podinfoService("api"))
			s.available("api")
			s.sandbox("route", "deploy/api")
			s.available("api")
			pod := s.pods("app=api")[0]
			pid := routerProcess(t, pod)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })

			r := s.trySandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1), "--timeout=8s")
			if r.err == nil {
				t.Errorf("fork succeeded while a router was frozen: %v", r)
			}
			if !strings.Contains(r.stdout+r.stderr, pod.Name) {
				t.Errorf("fork does not name the pod %s it waits for: %v", pod.Name, r)
			}
			if st := s.trySandbox("status", "pr-1"); !strings.Contains(st.stdout, pod.Name) {
				t.Errorf("status does not name the pod %s: %v", pod.Name, st)
			}
			if forkAvailable(s, "api-pr-1") {
				t.Error("the fork is Available while a router is frozen")
			}
			c.mend(s, pod, pid)
			took := eventually(t, 60*time.Second, "the fork is Available", func(context.Context) error {
				if !forkAvailable(s, "api-pr-1") {
					return fmt.Errorf("it is not")
				}
				return nil
			})
			t.Logf("available %s after the router was %s", took.Round(time.Millisecond), c.name)
			if took > 2*time.Second {
				t.Errorf("available %s after the router was %s, want 2s at most", took.Round(time.Millisecond), c.name)
			}
			time.Sleep(settle) // a Service goes on sending to a pod deleted by force until its rules follow
			client := newH1(s.address("api", "http"))
			defer client.close()
			for range 20 {
				if a, err := client.call(t.Context(), carriers("key-1")[0]); err != nil || a.Message != apps.Release(1) {
					t.Errorf("keyed request after that: %+v, %v", a, err)
				}
			}
		})
	}
}

func forkAvailable(s *space, name string) bool {
	d, err := s.client.AppsV1().Deployments(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range d.Status.Conditions {
		if c.Type == "Available" {
			return c.Status == corev1.ConditionTrue && d.Status.ObservedGeneration >= d.Generation
		}
	}
	return false
}

// routerProcess returns the pid, on this machine, of the router in a pod: tests run on the node.
func routerProcess(t *testing.T, pod corev1.Pod) int {
	t.Helper()
	for _, c := range pod.Status.InitContainerStatuses {
		if c.Name != sandbox.RouterContainer {
			continue
		}
		id := c.ContainerID[strings.LastIndex(c.ContainerID, "/")+1:]
		files, err := filepath.Glob("/proc/[0-9]*/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), id) {
				pid, err := strconv.Atoi(strings.Split(f, "/")[2])
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
		t.Fatalf("no process on this machine is of container %s: these tests must run on the node", id)
	}
	t.Fatalf("pod %s has no router", pod.Name)
	return 0
}

func TestAfterEachOfTwentyImageUpdatesNoKeyedRequestSeesTheOldVersion(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	web, rpc := s.address("api", "http"), s.address("api", "grpc")
	callers := []caller{newH1(web), newH1(web), newH1(web), newH1(web), newH2C(web), newGRPC(rpc)}
	for _, c := range callers {
		defer c.close()
	}
	const requests = 1000
	for release := 1; release <= full(20, 5); release++ {
		r := s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(release))
		judge := says(apps.Release(release), true)
		var (
			wg    sync.WaitGroup
			mu    sync.Mutex
			wrong []error
		)
		for i, c := range callers {
			carry := carriers("key-1")[i%3]
			wg.Go(func() {
				for range (requests + len(callers) - 1) / len(callers) {
					a, err := c.call(context.WithoutCancel(t.Context()), carry)
					if err == nil {
						err = judge(a)
					}
					if err != nil {
						mu.Lock()
						wrong = append(wrong, err)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		t.Logf("update %d: fork returned after %s", release, r.took.Round(time.Millisecond))
		if len(wrong) > 0 {
			t.Errorf("after update %d, %d of %d keyed requests: %v", release, len(wrong), requests, wrong[:min(3, len(wrong))])
		}
	}
}

func TestTheGateNeverFlapsNorARequestGoesAstrayWhileLeaderAndBaselineComeAndGo(t *testing.T) {
	s := newSpace(t)
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	flaps := s.watchGate("pr-1")

	key := carriers("key-1")[0]
	address := s.address("api", "http")
	unkeyed := startHTTP(t, "unkeyed", address, "/api/info", 30, nil, says(baselineMessage, false))
	keyed := startHTTP(t, "keyed", address, "/api/info", 30, map[string][]string{key.name: {key.value}}, says(apps.Release(1), true))
	keyedRPC := startGRPC(t, "keyed gRPC", s.address("api", "grpc"), 20, key, says(apps.Release(1), true))

	quiet := func(what string, do func()) { // no request may fail
		t.Helper()
		before := [3]int{}
		for i, l := range []*load{unkeyed, keyed, keyedRPC} {
			_, before[i] = l.mark()
		}
		do()
		time.Sleep(settle)
		for i, l := range []*load{unkeyed, keyed, keyedRPC} {
			if n, failed := l.mark(); failed > before[i] {
				l.mu.Lock()
				t.Errorf("%s: %d %s requests failed (of %d so far):\n%s", what, failed-before[i], l.name, n, listed(l.failures[before[i]:]))
				l.mu.Unlock()
			}
		}
	}
	quiet("failover of the lease holder", func() { failover(t) })
	quiet("failover back", func() { failover(t) })
	quiet("baseline rolled", func() {
		s.kubectl("rollout", "restart", "deploy/api")
		s.available("api")
	})
	quiet("baseline scaled to 10", func() {
		s.kubectl("scale", "deploy/api", "--replicas=10")
		s.available("api")
	})
	quiet("baseline scaled to 2", func() {
		s.kubectl("scale", "deploy/api", "--replicas=2")
		s.available("api")
	})
	// With no baseline there is nobody to answer; but what is answered must be answered right.
	s.kubectl("scale", "deploy/api", "--replicas=0")
	s.available("api")
	time.Sleep(settle)
	s.kubectl("scale", "deploy/api", "--replicas=2")
	s.available("api")
	time.Sleep(settle)
	quiet("after scaling to zero and back", func() {})
	for _, l := range []*load{unkeyed, keyed, keyedRPC} {
		l.neverWrong()
	}
	if seen := flaps(); len(seen) > 0 {
		t.Errorf("the gate flapped: %s", strings.Join(seen, "; "))
	}
}

// watchGate returns a function that tells each time a pod of the sandbox, once routed, was seen not to be.
func (s *space) watchGate(name string) func() []string {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w, err := s.client.CoreV1().Pods(s.name).Watch(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelSandbox + "=" + name})
	if err != nil {
		s.t.Fatal(err)
	}
	var (
		done  sync.WaitGroup
		flaps []string
		was   = map[string]bool{}
	)
	done.Go(func() {
		for e := range w.ResultChan() {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok || e.Type == watch.Deleted || pod.DeletionTimestamp != nil {
				continue
			}
			for _, c := range pod.Status.Conditions {
				if c.Type != sandbox.ConditionRouted && c.Type != corev1.PodReady {
					continue
				}
				id := pod.Name + " " + string(c.Type)
				is := c.Status == corev1.ConditionTrue
				if was[id] && !is {
					flaps = append(flaps, fmt.Sprintf("%s %s: %s", time.Now().Format("15:04:05.000"), id, c.Message))
				}
				was[id] = is
			}
		}
	})
	stop := sync.OnceFunc(func() { w.Stop(); cancel(); done.Wait() })
	s.t.Cleanup(stop)
	return func() []string {
		stop()
		if len(was) == 0 {
			s.t.Error("the watch saw no pod of the fork")
		}
		return flaps
	}
}

// failover kills the webhook pod that holds the lease, at once, and waits until another holds it.
func failover(t *testing.T) {
	t.Helper()
	old := leaseHolder(t)
	pods, err := shared.client.CoreV1().Pods(shared.release).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return p.Status.PodIP != "" && strings.HasPrefix(old, p.Status.PodIP+":") })
	if i < 0 {
		t.Fatalf("no pod in %s is %s, which holds the lease", shared.release, old)
	}
	// A pod's token ends with the pod, which is gone at once, and its process a moment later.
	shared.expectErrorsAnywhere(t, `Unauthorized`, "the token of a pod that is deleted without grace ends before its process")
	err = shared.client.CoreV1().Pods(shared.release).Delete(t.Context(), pods.Items[i].Name, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))})
	if err != nil {
		t.Fatal(err)
	}
	took := eventually(t, 60*time.Second, "another replica holds the lease", func(context.Context) error {
		if now := leaseHolder(t); now == old || now == "" {
			return fmt.Errorf("holder is %q", now)
		}
		return nil
	})
	t.Logf("lease went from %s to %s in %s", old, leaseHolder(t), took.Round(time.Millisecond))
	shared.webhookReady(t)
}

func leaseHolder(t *testing.T) string {
	t.Helper()
	lease, err := shared.client.CoordinationV1().Leases(shared.release).Get(t.Context(), "sandbox-webhook", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}
