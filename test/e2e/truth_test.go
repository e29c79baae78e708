package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A badState is a fork that requests do not reach, with what every face must say of it.
type badState struct {
	name string
	fork []string // of `fork`, beside the workload and the name
	code health.Code
	says string // part of the message
}

// inApp is the flag that changes the app's container.
func inApp(container string) string {
	return `--patch={"spec":{"containers":[{"name":"app",` + container + `}]}}`
}

// badStates are those of a fork's own pods. Each fork is made without waiting, and none ever serves.
func badStates() []badState {
	noProbe := `"readinessProbe":null`
	return []badState{
		{"image", []string{"--image=127.0.0.1:1/podinfo:nope"}, health.ImagePullFailed, "127.0.0.1:1/podinfo:nope"},
		{"image-name", []string{"--image=example.test/UPPER:x"}, health.ImageNameInvalid, "example.test/UPPER:x"},
		{"image-never", []string{inApp(`"image":"example.test/none:1","imagePullPolicy":"Never"`)}, health.ImagePullFailed, "example.test/none:1"},
		{"secret", []string{"--env=X@secret/none/key"}, health.SecretNotFound, `secret "none" not found`},
		{"config-map", []string{"--env=X@configmap/none/key"}, health.ConfigMapNotFound, `configmap "none" not found`},
		{"user", []string{inApp(`"securityContext":{"runAsNonRoot":true,"runAsUser":0}`)}, health.ContainerConfigError, "runAsUser"},
		{"crash", []string{"--env=PODINFO_RANDOM_DELAY_UNIT=years"}, health.ContainerCrashed, "container app crashes: exit code 2"},
		{"crash-without-probe", []string{"--env=PODINFO_RANDOM_DELAY_UNIT=years", inApp(noProbe)}, health.ContainerCrashed, "container app crashes: exit code 2"},
		{"no-program", []string{`--command=["/none"]`, "--args=[]"}, health.ContainerStartFailed, "container app can't be started"},
		{"unready", []string{"--env=PODINFO_UNREADY=true"}, health.ContainerNotReady, "readiness probe (GET /readyz on port 9898) has not passed"},
		{"starting", []string{inApp(`"startupProbe":{"httpGet":{"path":"/none","port":9898},"failureThreshold":1000}`)}, health.ContainerNotStarted, "startup probe (GET /none on port 9898) has not passed"},
		{"deaf", []string{`--args=["--port=1234","--grpc-port=0","--level=error"]`, inApp(noProbe)}, health.PortNotListening, "connection refused"},
		{"no-node", []string{`--patch={"spec":{"nodeSelector":{"no":"such"}}}`}, health.PodUnschedulable, "no node takes the pod"},
		{"no-room", []string{"--resources=requests.cpu=5000"}, health.PodUnschedulable, "Insufficient cpu"},
		{"held", []string{`--patch={"spec":{"schedulingGates":[{"name":"example.test/hold"}]}}`}, health.PodSchedulingGated, "example.test/hold"},
		{"foreign-gate", []string{`--patch={"spec":{"readinessGates":[{"conditionType":"target-health.example.com/tg-1"}]}}`}, health.ReadinessGateFalse, "target-health.example.com/tg-1"},
		{"no-pod", []string{"--replicas=0"}, health.ScaledToZero, "scaled to zero"},
		{"init", []string{`--patch={"spec":{"initContainers":[{"name":"migrate","image":"` + apps.Podinfo(0) + `","command":["/none"]}]}}`}, health.ContainerStartFailed, "init container migrate can't be started"},
		{"init-crash", []string{`--patch={"spec":{"initContainers":[{"name":"migrate","image":"` + apps.Podinfo(0) + `","args":["--level=none","--port=no"]}]}}`}, health.ContainerCrashed, "init container migrate failed: exit code 2"},
		{"sidecar-crash", []string{`--patch={"spec":{"containers":[{"name":"side","image":"` + apps.Podinfo(0) + `","args":["--port=no"]}]}}`}, health.ContainerCrashed, "container side crashes: exit code 2"},
		{"ends", []string{`--args=["--help"]`}, health.ContainerExited, "exit code 0"},
		{"config-map-key", []string{"--env=X@configmap/kube-root-ca.crt/none"}, health.ConfigMapNotFound, "key none"},
		{"claim", []string{`--patch={"spec":{"volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"none"}}]}}`}, health.PodUnschedulable, `persistentvolumeclaim "none" not found`},
		{"volume", []string{`--patch={"spec":{"volumes":[{"name":"data","secret":{"secretName":"none"}}],"containers":[{"name":"app","volumeMounts":[{"name":"data","mountPath":"/data"}]}]}}`}, health.PodStarting, "is being created"},
		{"no-affinity", []string{`--patch={"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"no","operator":"Exists"}]}]}}}}}`}, health.PodUnschedulable, "no node takes the pod"},
		{"no-memory", []string{"--resources=requests.memory=900Ti"}, health.PodUnschedulable, "Insufficient memory"},
	}
}

// A face tells about a fork; what it says must hold the code, where it has one, and the cause.
type face struct {
	name string
	code bool // it states the code
	// tells returns what the face says of the sandbox of that name; false: it has nothing to say of such a state.
	tells func(*space, badState) (string, bool)
}

func faces(o *opened) []face {
	return []face{
		{"published", true, func(s *space, b badState) (string, bool) {
			cm, err := s.client.CoreV1().ConfigMaps(s.name).Get(s.t.Context(), sandbox.ConfigMapName(b.name), metav1.GetOptions{})
			if err != nil {
				return err.Error(), true
			}
			t := health.ParsePublished(cm.Data[sandbox.DataHealth])["api-"+b.name]
			return string(t.Code) + " " + t.Message, true
		}},
		{"gate", true, func(s *space, b badState) (string, bool) {
			for _, p := range s.pods(sandbox.LabelSandbox + "=" + b.name) {
				for _, c := range p.Status.Conditions {
					if c.Type == sandbox.ConditionRouted && c.Status == corev1.ConditionFalse {
						return c.Reason + " " + c.Message, true
					}
				}
			}
			return "", false // its containers are not ready, or it needs nothing of the gate
		}},
		{"event", true, func(s *space, b badState) (string, bool) {
			events, err := s.client.EventsV1().Events(s.name).List(s.t.Context(), metav1.ListOptions{})
			if err != nil {
				return err.Error(), true
			}
			var all []string
			for _, e := range events.Items {
				if e.Regarding.Kind == "Deployment" && e.Regarding.Name == "api-"+b.name {
					all = append(all, e.Reason+" "+e.Note)
				}
			}
			return strings.Join(all, "\n"), true
		}},
		{"status", false, func(s *space, b badState) (string, bool) {
			return s.trySandbox("status", b.name).stdout, true
		}},
		{"list", true, func(s *space, b badState) (string, bool) {
			var all status.SandboxStatusList
			s.decode(&all, "list", "-o", "json")
			for _, one := range all.Items {
				if one.Metadata.Name == b.name && len(one.Conditions) > 0 {
					return one.Conditions[0].Reason + " " + one.Conditions[0].Message, true
				}
			}
			return "", true
		}},
		{"fork", false, func(s *space, b badState) (string, bool) {
			if b.fork == nil {
				return "", false
			}
			return s.trySandbox(append(forkOf(b), "--timeout=3s")...).stderr, true
		}},
		{"503", true, func(s *space, b badState) (string, bool) {
			if b.code == health.PortNotListening || b.code == health.ReadinessGateFalse {
				return "", false // its containers are ready, so routers try it: the answer tells what came of that
			}
			return s.refusal(b.name), true
		}},
		{"page", true, func(_ *space, b badState) (string, bool) {
			if b.code == health.ReadinessGateFalse {
				return "", false // requests reach it all the same
			}
			return o.page(b.name), true
		}},
	}
}

// refusal is what a keyed request's answer says in place of the fork's.
func (s *space) refusal(key string) string {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.address("api", "http")+"/", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set(sandbox.DefaultHeader, key)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return fmt.Sprintf("%d %s", answer.StatusCode, answer.Header.Get(sandbox.HeaderError))
}

// page is what `open` answers a program that asks for a sandbox.
func (o *opened) page(name string) string {
	answer, body, err := o.try(fmt.Sprintf("http://%s.localhost:%d/", name, o.Port))
	if err != nil {
		return err.Error()
	}
	var said struct{ Code, Reason string }
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		return fmt.Sprintf("%s: %v", answer.Status, err)
	}
	return said.Code + " " + said.Reason
}

// Each state of a fork's pods is told by every face with the same code and the same cause, and no face says that it is routed.
func TestEveryFaceTellsTheSameOfAForkThatDoesNotRun(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	for _, b := range badStates() {
		s.sandbox(append(forkOf(b), "--wait=false")...)
	}
	o := s.open(badStates()[0].name, "svc/api")
	for _, b := range badStates() {
		for _, f := range faces(o) {
			t.Run(b.name+"/"+f.name, func(t *testing.T) { s.told(t, b, f) })
		}
	}
}

// forkOf are the arguments that make the fork of a state.
func forkOf(b badState) []string {
	return append([]string{"fork", "deploy/api", "--name=" + b.name, "--key=" + b.name}, b.fork...)
}

func (s *space) told(t *testing.T, b badState, f face) {
	eventually(t, 60*time.Second, "it is told", func(context.Context) error {
		said, tells := f.tells(s, b)
		if !tells {
			return nil
		}
		if f.code && !strings.Contains(said, string(b.code)) || !strings.Contains(said, b.says) {
			return fmt.Errorf("want %s and %q: %s", b.code, b.says, said)
		}
		return nil
	})
}

// A passedBy is what becomes of a Service or a baseline after a fork was routed.
type passedBy struct {
	badState
	happens, fixed func(*space) // fixed: nil where nothing brings it back
}

func passedBys() []passedBy {
	selector := func(app string) func(*space) {
		return func(s *space) {
			s.kubectl("patch", "service", "api", `--patch={"spec":{"selector":{"app":"`+app+`"}}}`)
		}
	}
	scale := func(n string) func(*space) {
		return func(s *space) { s.kubectl("scale", "deploy/api", "--replicas="+n) }
	}
	of := func(code health.Code, says string) badState { return badState{name: "pr", code: code, says: says} }
	return []passedBy{
		{of(health.ServiceWithoutPods, "no Service leads to a routed port of the baseline deployment/api"), selector("nobody"), selector("api")},
		{of(health.BaselineNotRouted, "is not routed any more"), func(s *space) { s.sandbox("unroute", "deploy/api", "--force") },
			func(s *space) { s.sandbox("route", "deploy/api") }},
		{of(health.NoBaselinePod, "the baseline deployment/api has no ready pod"), scale("0"), scale("1")},
		{of(health.BaselineGone, "the baseline deployment/api does not exist any more"), func(s *space) { s.kubectl("delete", "deploy", "api") }, nil},
	}
}

// What becomes of Services and baselines after the gate turned is told by whoever tells; once it is fixed, that is told as well. Whether
// requests reach the fork is seen by a client.
func TestWhatPassesTheRoutersByIsTold(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	s.sandbox("fork", "deploy/api", "--name=pr", "--key=pr", "--env=X=1")
	published, event, printed, list := faces(nil)[0], faces(nil)[2], faces(nil)[3], faces(nil)[4]
	for _, b := range passedBys() {
		eventually(t, 30*time.Second, "the key reaches the fork to begin with", func(context.Context) error {
			if by := s.servedBy("pr"); !strings.HasPrefix(by, "api-pr-") {
				return fmt.Errorf("served by %q", by)
			}
			return nil
		})
		b.happens(s)
		eventually(t, 30*time.Second, "the key does not reach the fork any more", func(context.Context) error {
			if by := s.servedBy("pr"); strings.HasPrefix(by, "api-pr-") {
				return fmt.Errorf("served by %q", by)
			}
			return nil
		})
		for _, f := range []face{published, event, printed, list} {
			t.Run(string(b.code)+"/"+f.name, func(t *testing.T) { s.told(t, b.badState, f) })
		}
		if b.fixed != nil {
			b.fixed(s)
			s.told(t, badState{name: "pr", code: health.Routed, says: "requests with the key reach the fork"}, published)
		}
	}
}

// servedBy is the pod that answers a keyed request.
func (s *space) servedBy(key string) string {
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.address("api", "http")+"/", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set(sandbox.DefaultHeader, key)
	answer, err := newConnection().Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	return answer.Header.Get(sandbox.HeaderServedBy)
}

// newConnection is a client whose requests each have a connection of their own, which a Service leads anew.
func newConnection() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// A fork whose image crashes at start, and one that listens only after a while, are not ready before a router could connect, though
// neither has a readiness probe.
func TestForkWithoutReadinessProbeIsRoutedOnceItListens(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	noProbe := inApp(`"readinessProbe":null`)
	for i := range 10 {
		name := fmt.Sprintf("crash-%d", i)
		if r := s.trySandbox("fork", "deploy/api", "--name="+name, noProbe, "--env=PODINFO_RANDOM_DELAY_UNIT=years", "--timeout=60s"); r.err == nil || !strings.Contains(r.stderr, "container app crashes: exit code 2") {
			t.Errorf("fork of an image that crashes at start: %v", r)
		}
		s.sandbox("delete", name)
	}
	if r := s.trySandbox("fork", "deploy/api", "--name=deaf", noProbe, `--args=["--port=1234","--grpc-port=0","--level=error"]`, "--timeout=15s"); r.err == nil || !strings.Contains(r.stderr, "connection refused") {
		t.Errorf("fork of an app that listens elsewhere: %v", r)
	}
	s.sandbox("fork", "deploy/api", "--name=fine", "--key=fine", noProbe, "--env=X=1")
	if by := s.servedBy("fine"); !strings.HasPrefix(by, "api-fine-") {
		t.Errorf("the first request after fork returned is served by %s", by)
	}
}
