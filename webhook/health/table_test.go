package health_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A scene is a fork that requests reach, and what leads to it. States are changes of it.
type scene struct {
	fork     *corev1.Pod
	facts    health.Facts
	baseline *corev1.Pod
	service  *corev1.Service
}

func routedScene() *scene {
	ports := map[string]string{sandbox.AnnotationPorts: "http=8080"}
	labels := map[string]string{sandbox.LabelSandbox: "pr", sandbox.LabelWorkload: "deployment.api"}
	s := &scene{
		fork: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "api-pr-1", Labels: labels, Annotations: ports, OwnerReferences: []metav1.OwnerReference{{UID: "rs"}}},
			Spec: corev1.PodSpec{
				ReadinessGates: []corev1.PodReadinessGate{{ConditionType: sandbox.ConditionRouted}},
				Containers: []corev1.Container{{Name: "app", Image: "api:2", ReadinessProbe: &corev1.Probe{
					ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("http")}}}}},
			},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1",
				Conditions: []corev1.PodCondition{
					{Type: sandbox.ConditionRouted, Status: corev1.ConditionTrue}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
					{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "app", Ready: true, Started: ptr(true),
					State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-time.Hour))}}}}},
		},
		baseline: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "api-0", Annotations: ports, Labels: map[string]string{
				sandbox.LabelRole: sandbox.RoleBaseline, sandbox.LabelWorkload: "deployment.api", "app": "api"}},
			Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: sandbox.RouterContainer}},
				Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		},
		service: &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "api", Labels: map[string]string{sandbox.LabelRole: sandbox.RoleService}},
			Spec: corev1.ServiceSpec{ClusterIP: "10.1.0.1", Selector: map[string]string{"app": "api"},
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}},
		},
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "api-pr", UID: "d", Labels: labels, Annotations: map[string]string{health.AnnotationRevision: "1"}}}
	d.Spec.Template.Annotations = ports
	d.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
	s.facts = health.Facts{
		Now: now, Deployment: d, Revisions: map[types.UID]int64{"rs": 1}, Pods: []*corev1.Pod{s.fork},
		Baseline: &health.Baseline{Gone: ptr(false), Marked: ptr(true), Behind: ptr(false), Pods: []*corev1.Pod{s.baseline},
			Services: &[]*corev1.Service{s.service}, Others: &[]*corev1.Pod{}},
		Routing: &health.Routing{Serving: []string{"api-pr-1"}, Routes: 1, Tries: true, Ports: map[string]string{"api-pr-1": ""}},
	}
	return s
}

func ptr[T any](v T) *T { return &v }

// unready takes the pod's readiness away, and has its one container in the given states.
func (s *scene) unready(state corev1.ContainerState, last ...corev1.ContainerState) {
	s.fork.Status.Conditions = nil
	c := corev1.ContainerStatus{Name: "app", Started: ptr(true), State: state}
	if len(last) > 0 {
		c.LastTerminationState = last[0]
	}
	s.fork.Status.ContainerStatuses = []corev1.ContainerStatus{c}
	s.facts.Deployment.Status.AvailableReplicas = 0
}

func (s *scene) waits(reason, message string) {
	s.unready(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}})
}

func (s *scene) fails(reason, message string) {
	s.unready(corev1.ContainerState{})
	s.fork.Status.ContainerStatuses, s.fork.Status.Phase, s.fork.Status.Reason, s.fork.Status.Message = nil, corev1.PodFailed, reason, message
}

func (s *scene) notCreated(message string) {
	s.facts.Pods = nil
	s.facts.Deployment.Status = appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{
		{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: message}}}
}

func (s *scene) gateFalse() { s.fork.Status.Conditions = s.fork.Status.Conditions[1:2] }

func ended(code int32, reason string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
}

func running(since time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-since))}}
}

var backOff = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}

// A row is a state, and the truth about it.
type row struct {
	name    string
	change  func(*scene)
	code    health.Code
	says    string // part of the message
	state   health.State
	fault   health.Fault
	outlook health.Outlook
	fix     string // part of the command
}

const (
	waits, mayPass, final  = health.OutlookWaits, health.OutlookMayPass, health.OutlookFinal
	app, inCluster, ours   = health.FaultApp, health.FaultCluster, health.FaultProduct
	sWait, sFailed, sPast  = health.StateWaiting, health.StateFailed, health.StateNotRouted
	deleteIt, routeItAgain = "kubectl sandbox delete pr", "kubectl sandbox route deployment/api"
)

func podRows() []row {
	return []row{
		{"being created", func(s *scene) { s.waits("ContainerCreating", "") }, health.PodStarting, "container app is being created", sWait, inCluster, waits, ""},
		{"image not found", func(s *scene) { s.waits("ErrImagePull", "rpc error: code = NotFound desc = x: not found") }, health.ImagePullFailed,
			`image "api:2" of container app can't be pulled: x: not found`, sFailed, app, final, deleteIt},
		{"registry away", func(s *scene) { s.waits("ErrImagePull", "dial tcp: connection refused") }, health.ImagePullFailed, "connection refused", sFailed, inCluster, mayPass, deleteIt},
		{"image back-off", func(s *scene) { s.waits("ImagePullBackOff", `Back-off pulling image "api:2"`) }, health.ImagePullFailed, "ImagePullBackOff", sFailed, inCluster, final, deleteIt},
		{"image name", func(s *scene) { s.waits("InvalidImageName", "") }, health.ImageNameInvalid, "no valid image name", sFailed, app, final, deleteIt},
		{"image must be there", func(s *scene) {
			s.waits("ErrImageNeverPull", "Container image is not present with pull policy of Never")
		}, health.ImagePullFailed, "pull policy of Never", sFailed, app, final, deleteIt},
		{"secret", func(s *scene) { s.waits("CreateContainerConfigError", `secret "db" not found`) }, health.SecretNotFound, `secret "db" not found`, sFailed, app, final, deleteIt},
		{"key of a secret", func(s *scene) { s.waits("CreateContainerConfigError", "couldn't find key pw in Secret shop/db") }, health.SecretNotFound, "key pw", sFailed, app, final, deleteIt},
		{"config map", func(s *scene) { s.waits("CreateContainerConfigError", `configmap "c" not found`) }, health.ConfigMapNotFound, `configmap "c"`, sFailed, app, final, deleteIt},
		{"user", func(s *scene) {
			s.waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
		}, health.ContainerConfigError, "runAsNonRoot", sFailed, app, final, deleteIt},
		{"no such program", func(s *scene) { s.waits("RunContainerError", "exec: not found") }, health.ContainerStartFailed, "exec: not found", sFailed, app, final, deleteIt},
		{"no such program, later", func(s *scene) { s.unready(backOff, ended(128, "StartError")) }, health.ContainerStartFailed, "can't be started", sFailed, app, final, deleteIt},
		{"undocumented", func(s *scene) { s.waits("Odd", "new") }, health.ContainerWaiting, "Odd: new", sFailed, inCluster, mayPass, deleteIt},
		{"crash", func(s *scene) { s.unready(ended(3, "Error")) }, health.ContainerCrashed, "container app crashes: exit code 3", sFailed, app, mayPass, deleteIt},
		{"crash loop", func(s *scene) { s.unready(backOff, ended(3, "Error")) }, health.ContainerCrashed, "container app crashes: exit code 3", sFailed, app, final, deleteIt},
		{"crashed and up again", func(s *scene) { s.unready(running(time.Second), ended(3, "Error")) }, health.ContainerCrashed, "container app crashes: exit code 3", sFailed, app, mayPass, deleteIt},
		{"out of memory", func(s *scene) {
			s.fork.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
			s.unready(backOff, ended(137, "OOMKilled"))
		}, health.OutOfMemory, "container app ran out of memory (OOMKilled, its limit is 64Mi)", sFailed, app, final, deleteIt},
		{"ends", func(s *scene) { s.unready(backOff, ended(0, "Completed")) }, health.ContainerExited, "exit code 0", sFailed, app, final, deleteIt},
		{"no readiness", func(s *scene) { s.unready(running(time.Minute)) }, health.ContainerNotReady, "readiness probe (GET /ready on port http) has not passed", sWait, app, waits, ""},
		{"no startup", func(s *scene) {
			s.fork.Spec.Containers[0].StartupProbe = &corev1.Probe{}
			s.unready(running(time.Minute))
			s.fork.Status.ContainerStatuses[0].Started = ptr(false)
		}, health.ContainerNotStarted, "startup probe has not passed", sWait, app, waits, ""},
		{"init container crashes", func(s *scene) {
			s.waits("PodInitializing", "")
			s.fork.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", State: backOff, LastTerminationState: ended(1, "Error")}}
		}, health.ContainerCrashed, "init container migrate failed: exit code 1", sFailed, app, final, deleteIt},
		{"before its init containers", func(s *scene) {
			s.waits("PodInitializing", "")
			s.fork.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: sandbox.RouterContainer,
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}}
		}, health.PodStarting, "container app is being created, after the pod's init containers", sWait, inCluster, waits, ""},
		{"router crashes", func(s *scene) {
			s.waits("PodInitializing", "")
			s.fork.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: sandbox.RouterContainer, State: backOff, LastTerminationState: ended(1, "Error")}}
		}, health.ContainerCrashed, "container sandbox-router crashes", sFailed, ours, final, deleteIt},
		{"unschedulable", func(s *scene) {
			s.fork.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available"}}}
		}, health.PodUnschedulable, "0/1 nodes are available", sWait, inCluster, waits, ""},
		{"scheduling gate", func(s *scene) {
			s.fork.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/hold"}}
			s.fork.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated}}}
		}, health.PodSchedulingGated, "example.com/hold", sWait, inCluster, waits, ""},
		{"evicted", func(s *scene) { s.fails("Evicted", "low on disk") }, health.PodEvicted, "low on disk", sFailed, inCluster, mayPass, deleteIt},
		{"refused by its node", func(s *scene) { s.fails("OutOfcpu", "no cpu") }, health.PodRejected, "OutOfcpu: no cpu", sFailed, inCluster, mayPass, deleteIt},
		{"node shut down", func(s *scene) { s.fails("Terminated", "node shutdown") }, health.PodLost, "node shutdown", sFailed, inCluster, mayPass, deleteIt},
		{"foreign gate", func(s *scene) {
			s.fork.Spec.ReadinessGates = append(s.fork.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: "target-health.example.com/tg-1"})
			s.fork.Status.Conditions = s.fork.Status.Conditions[:2]
		}, health.ReadinessGateFalse, "target-health.example.com/tg-1", sWait, inCluster, waits, `kubectl sandbox fork deployment/api --name=pr --patch={"spec":{"readinessGates":null}}`},
		{"not injected", func(s *scene) { s.fork.Spec.ReadinessGates = nil }, health.NotInjected, "created without the webhook", sFailed, ours, final, "kubectl delete pod api-pr-1"},
		{"quota", func(s *scene) {
			s.notCreated(`pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1`)
		}, health.QuotaExceeded, "exceeded quota: q", sFailed, inCluster, mayPass, "kubectl patch resourcequota q"},
		{"pod security", func(s *scene) {
			s.notCreated(`pods "x" is forbidden: violates PodSecurity "restricted:latest": a`)
		}, health.PodSecurity, "violates PodSecurity", sFailed, app, mayPass, deleteIt},
		{"webhook away", func(s *scene) {
			s.notCreated(`failed calling webhook "fork.kubectl-sandbox.dev": Post "https://w.tools.svc:443/x": refused`)
		}, health.WebhookAway, "does not answer", sFailed, ours, mayPass, "kubectl scale deployment/w --namespace=tools"},
		{"scaled to zero", func(s *scene) { s.facts.Deployment.Spec.Replicas = ptr(int32(0)) }, health.ScaledToZero, "scaled to zero", sWait, app, waits, "kubectl scale deployment/api-pr"},
		{"none yet", func(s *scene) { s.facts.Pods = nil }, health.PodsNotCreated, "have not been created", sWait, inCluster, waits, ""},
		{"not seen", func(s *scene) { s.facts.Deployment.Generation = 9 }, health.ForkNotObserved, "newest template", sWait, inCluster, waits, ""},
		{"older pods", func(s *scene) { s.facts.Deployment.Status.Replicas = 2 }, health.OlderPodsRemain, "older template", sWait, inCluster, waits, ""},
	}
}

func pathRows() []row {
	return []row{
		{"router missing", func(s *scene) { s.baseline.Spec.InitContainers = nil }, health.RouterMissing, "baseline pod api-0 has no router", sPast, ours, waits, "kubectl rollout restart deployment/api"},
		{"router declined", func(s *scene) {
			s.baseline.Spec.InitContainers = nil
			s.baseline.Annotations = map[string]string{sandbox.AnnotationInjected: "declined: port-moved: port http is 8081"}
		}, health.RouterDeclined, "admission declined (port-moved): port http is 8081", sPast, app, mayPass, routeItAgain},
		{"not connected", func(s *scene) {
			s.facts.Routing.Routers = map[string]health.RouterState{"api-0": health.RouterUnconnected}
		}, health.RouterNotConnected, "api-0", sPast, ours, waits, ""},
		{"not acknowledged", func(s *scene) {
			s.facts.Routing.Routers = map[string]health.RouterState{"api-0": health.RouterUnacked}
		}, health.RouterNotAcknowledged, "api-0", sPast, ours, waits, ""},
		{"stale", func(s *scene) {
			s.facts.Routing.Routers = map[string]health.RouterState{"api-0": health.RouterTooOld}
		}, health.RouterStale, "api-0", sPast, ours, waits, ""},
		{"key taken", func(s *scene) { s.facts.Routing.Claim = health.Claim{Code: health.KeyTaken, Message: "taken by b"} }, health.KeyTaken, "taken by b", sPast, app, final, "kubectl sandbox delete"},
		{"key invalid", func(s *scene) {
			s.facts.Routing.Claim = health.Claim{Code: health.KeyInvalid, Message: "no key"}
		}, health.KeyInvalid, "no key", sPast, app, final, "kubectl sandbox delete"},
		{"nobody listens", func(s *scene) {
			s.facts.Routing.Ports["api-pr-1"] = "port http (8080): connection refused"
		}, health.PortNotListening, "connection refused", sPast, app, waits, ""},
		{"not tried", func(s *scene) { s.gateFalse(); s.facts.Routing.Ports = nil }, health.PortNotTried, "tried", sPast, ours, waits, ""},
		{"just started, without probe", func(s *scene) {
			s.gateFalse()
			s.fork.Spec.Containers[0].ReadinessProbe = nil
			s.fork.Status.ContainerStatuses[0].State = running(time.Second)
		}, health.ContainerJustStarted, "no readiness probe", sPast, app, waits, ""},
		{"older revision", func(s *scene) { s.gateFalse(); s.facts.Routing.Serving = nil }, health.OlderRevision, "older revision", sPast, ours, waits, ""},
		{"numeric targetPort", func(s *scene) { s.service.Spec.Ports[0].TargetPort = intstr.FromInt32(8080) }, health.ServiceBypassesRouters, "service/api port 80 leads to targetPort 8080", sPast, ours, mayPass, routeItAgain},
		{"put back", func(s *scene) {
			s.service.Spec.Ports[0].TargetPort = intstr.FromInt32(8080)
			s.service.Annotations = map[string]string{sandbox.AnnotationRestored: sandbox.FormatRestored(sandbox.Restored{Reason: "pod x has no port named http"})}
		}, health.ServiceBypassesRouters, "restored because pod x has no port named http", sPast, ours, mayPass, routeItAgain},
		{"another targetPort", func(s *scene) { s.service.Spec.Ports[0].TargetPort = intstr.FromInt32(9090) }, health.ServiceBypassesRouters,
			"service/api port 80 leads to targetPort 9090", sPast, ours, mayPass, routeItAgain},
		{"selector leads elsewhere", func(s *scene) { s.service.Spec.Selector["app"] = "other" }, health.ServiceWithoutPods, "no Service leads", sPast, app, mayPass, "kubectl get services"},
		{"pods of before route", func(s *scene) {
			old := s.baseline.DeepCopy()
			old.Name, old.Labels = "api-5f4-x", map[string]string{"app": "api", "pod-template-hash": "5f4"}
			old.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "api-5f4", Controller: ptr(true)}}
			old.Spec.InitContainers, old.DeletionTimestamp = nil, &metav1.Time{Time: now}
			old.Status.Phase, old.Status.Conditions = corev1.PodRunning, nil
			s.facts.Baseline.Others = &[]*corev1.Pod{old}
			s.baseline.Status.Conditions = nil
		}, health.RouterMissing, "pod api-5f4-x has no router", sPast, ours, waits, "kubectl rollout restart deployment/api"},
		{"crashed, and not routed", func(s *scene) {
			s.unready(ended(1, "Error"))
			s.facts.Baseline.Marked = new(bool)
		}, health.BaselineNotRouted, "not routed any more", sPast, ours, mayPass, routeItAgain},
		{"crashed, and past the routers", func(s *scene) {
			s.unready(ended(1, "Error"))
			s.service.Spec.Ports[0].TargetPort = intstr.FromInt32(8080)
		}, health.ServiceBypassesRouters, "service/api port 80 leads to targetPort 8080", sPast, ours, mayPass, routeItAgain},
		{"two workloads", func(s *scene) {
			other := s.baseline.DeepCopy()
			other.Name, other.Labels[sandbox.LabelWorkload] = "canary-0", "deployment.api-canary"
			s.facts.Baseline.Others = &[]*corev1.Pod{other}
		}, health.ServiceShared, "service/api also leads to deployment/api-canary: 1 of its 2 ready pods", sPast, app, final, "kubectl get pods"},
		{"baseline gone", func(s *scene) { s.facts.Baseline.Gone, s.facts.Baseline.Pods = ptr(true), nil }, health.BaselineGone, "does not exist", sPast, app, final, "kubectl sandbox delete"},
		{"unrouted", func(s *scene) { s.facts.Baseline.Marked, s.facts.Baseline.Pods = ptr(false), nil }, health.BaselineNotRouted, "marks", sPast, ours, mayPass, routeItAgain},
		{"baseline down", func(s *scene) { s.baseline.Status.Conditions = nil }, health.NoBaselinePod, "no ready pod", sPast, app, waits, ""},
	}
}

func TestFork_everyState(t *testing.T) {
	if r := health.Fork(routedScene().facts); !r.OK() || r.State != health.StateRouted || len(r.Unknown) > 0 {
		t.Fatalf("the scene itself: %+v", r)
	}
	for _, tt := range append(podRows(), pathRows()...) {
		t.Run(tt.name, func(t *testing.T) {
			s := routedScene()
			tt.change(s)
			r := health.Fork(s.facts)
			c := r.Cause()
			if c.Code != tt.code || !strings.Contains(c.Message, tt.says) || r.State != tt.state || c.Fault != tt.fault || c.Outlook != tt.outlook ||
				!strings.Contains(strings.Join(c.Fix, " "), tt.fix) {
				t.Errorf("got %s %s %s %d %q fix %q\nwant %s %s %s %d %q fix %q", c.Code, r.State, c.Fault, c.Outlook, c.Message, c.Fix, tt.code, tt.state, tt.fault, tt.outlook, tt.says, tt.fix)
			}
			if strings.ContainsAny(c.Message, "\n") || strings.HasSuffix(c.Message, ".") || r.OK() {
				t.Errorf("no sentence: %q", c.Message)
			}
		})
	}
}

// Every face states the same code and message: those that see the cluster by themselves, those that read what is
// published, and those that see the fork's own objects alone.
func TestFork_sameOnEveryFace(t *testing.T) {
	faces := map[string]func(*scene, health.Truth) health.Cause{
		"plugin that sees everything": func(s *scene, truth health.Truth) health.Cause {
			f := s.facts
			f.Routing, f.Published = nil, truth
			return health.Fork(f).Cause()
		},
		"plugin that sees the fork alone": func(s *scene, truth health.Truth) health.Cause {
			f := s.facts
			f.Routing, f.Baseline, f.Published = nil, nil, truth
			return health.Fork(f).Cause()
		},
		"published": func(_ *scene, truth health.Truth) health.Cause {
			return health.Cause{Code: truth.Code, Message: truth.Message}
		},
	}
	for _, tt := range append(podRows(), pathRows()...) {
		for face, tell := range faces {
			t.Run(tt.name+"/"+face, func(t *testing.T) {
				s := routedScene()
				tt.change(s)
				report := health.Fork(s.facts)
				want := report.Cause()
				truth := health.NewTruth(s.facts, report)
				written, err := health.Published{"api-pr": truth}.Format()
				if err != nil {
					t.Fatal(err)
				}
				s.tellGate()
				got := tell(s, health.ParsePublished(written)["api-pr"])
				if got.Code != want.Code || got.Message != want.Message {
					t.Errorf("%s %q, want %s %q", got.Code, got.Message, want.Code, want.Message)
				}
				// The control plane publishes no commands: whoever reads it works out the same one, unless that takes more than it
				// says.
				unsaid := want.Code == health.RouterDeclined || want.Code == health.ServiceShared
				if face != "published" && !(unsaid && face == "plugin that sees the fork alone") && (got.Say != want.Say || !slices.Equal(got.Fix, want.Fix)) {
					t.Errorf("%s %q, want %s %q", got.Say, got.Fix, want.Say, want.Fix)
				}
			})
		}
	}
}

// tellGate has the controller write the gate of a pod that waits for it.
func (s *scene) tellGate() {
	for i, c := range s.fork.Status.Conditions {
		if c.Type == sandbox.ConditionRouted && c.Status == corev1.ConditionTrue {
			return
		}
		_ = i
	}
	if cause := health.Gate(s.facts, s.fork); !cause.OK() {
		s.fork.Status.Conditions = append(s.fork.Status.Conditions, corev1.PodCondition{
			Type: sandbox.ConditionRouted, Status: corev1.ConditionFalse, Reason: string(cause.Code), Message: cause.Message})
	}
}

// What is not known is said to be not known, and is no cause.
func TestFork_unknown(t *testing.T) {
	s := routedScene()
	s.facts.Baseline, s.facts.Routing = nil, nil
	if r := health.Fork(s.facts); !r.OK() || len(r.Unknown) != 2 {
		t.Errorf("%+v", r)
	}
	s.fork.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second))
	if r := health.Fork(s.facts); !r.OK() || len(r.Unknown) != 1 {
		t.Errorf("with a gate that turned a second ago: %+v", r)
	}
	s.fork.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Minute))
	if r := health.Fork(s.facts); !r.OK() || len(r.Unknown) != 2 {
		t.Errorf("with a gate that turned a minute ago: %+v", r)
	}
	s = routedScene()
	s.facts.Baseline.Services, s.facts.Baseline.Others, s.facts.Routing.Tries, s.facts.Routing.Ports = nil, nil, false, nil
	if r := health.Fork(s.facts); !r.OK() || len(r.Unknown) != 2 {
		t.Errorf("%+v", r)
	}
}

// What is published is bounded, however many pods and forks there are.
func TestPublished_bounded(t *testing.T) {
	s := routedScene()
	s.facts.Routing.Claim = health.Claim{Code: health.KeyTaken, Message: strings.Repeat("é", 5000)}
	s.facts.Routing.Routers = map[string]health.RouterState{}
	for i := range 5000 {
		name := "pod-" + strings.Repeat("x", 50) + time.Duration(i).String()
		s.facts.Routing.Routers[name], s.facts.Routing.Ports[name] = health.RouterUnacked, "refused"
	}
	truth := health.NewTruth(s.facts, health.Fork(s.facts))
	all := health.Published{}
	for i := range 300 {
		all["fork-"+time.Duration(i).String()] = truth
	}
	written, err := all.Format()
	if err != nil || len(written) > 512<<10 || len(health.ParsePublished(written)) != 100 {
		t.Errorf("%v: %d bytes, %d forks", err, len(written), len(health.ParsePublished(written)))
	}
}
