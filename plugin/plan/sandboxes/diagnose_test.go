package sandboxes_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// aFork is a routed fork with one ready pod of its newest template, as a cluster holds it.
type aFork struct {
	deployment appsv1.Deployment
	sets       []appsv1.ReplicaSet
	pods       []corev1.Pod
}

func ready() aFork {
	f := aFork{
		deployment: appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{
				Name: "api-pr-42", UID: "d", Generation: 2, Labels: map[string]string{sandbox.LabelSandbox: "pr-42"},
				Annotations: map[string]string{"deployment.kubernetes.io/revision": "2"},
			},
			Spec: appsv1.DeploymentSpec{Replicas: new(int32(1)), Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{sandbox.AnnotationPorts: "http=8080"}},
			}},
			Status: appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1},
		},
		sets: []appsv1.ReplicaSet{set("old", "1"), set("new", "2")},
		pods: []corev1.Pod{pod("old", "p0"), pod("new", "p1")},
	}
	return f
}

func set(uid, revision string) appsv1.ReplicaSet {
	return appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Name: uid, UID: types.UID(uid), Annotations: map[string]string{"deployment.kubernetes.io/revision": revision},
		OwnerReferences: []metav1.OwnerReference{{UID: "d", Controller: new(true)}},
	}}
}

func pod(set, name string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{UID: types.UID(set), Controller: new(true)}}},
		Spec:       corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: sandbox.ConditionRouted}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
		}},
	}
}

// starting is a fork whose newest pod has one container, in the given state.
func starting(c corev1.ContainerStatus) func(*aFork) {
	return func(f *aFork) {
		f.deployment.Status.AvailableReplicas = 0
		c.Name, c.Image = "api", "api:2"
		f.pods[1].Status = corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{c}}
	}
}

func waits(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func notCreated(message string) func(*aFork) {
	return func(f *aFork) {
		f.deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: message},
		}}
		f.pods = nil
	}
}

func TestDiagnose(t *testing.T) {
	crashed := waits("CrashLoopBackOff", "back-off 10s restarting failed container=api")
	crashed.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
	for _, tt := range []struct {
		name    string
		change  func(*aFork)
		ready   bool
		waiting string // part of it
		problem string // part of it
		fix     string
		passing bool
	}{
		{name: "ready", change: func(*aFork) {}, ready: true},
		{name: "scaled to zero", ready: true, change: func(f *aFork) {
			f.deployment.Spec.Replicas, f.deployment.Status, f.pods = new(int32(0)), appsv1.DeploymentStatus{ObservedGeneration: 2}, nil
		}},
		{name: "not seen", change: func(f *aFork) { f.deployment.Generation = 3 }, waiting: "the Deployment controller has not seen its newest template yet"},
		{name: "deleted", change: func(f *aFork) { f.deployment.DeletionTimestamp = &metav1.Time{} }, waiting: "is being deleted"},
		{name: "no pod yet", change: func(f *aFork) {
			f.deployment.Status, f.pods = appsv1.DeploymentStatus{ObservedGeneration: 2}, nil
		}, waiting: "pods have not been created yet"},
		{name: "older pods still there", change: func(f *aFork) { f.deployment.Status.Replicas = 2 }, waiting: "pods of the fork's older template have not ended yet"},
		{name: "older pod fails", change: func(f *aFork) {
			starting(waits("", ""))(f)
			f.pods[0].Status = corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waits("ImagePullBackOff", "")}}
		}, waiting: "container api is being created"},
		{name: "unschedulable", change: func(f *aFork) {
			starting(waits("", ""))(f)
			f.pods[1].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available"}}
		}, waiting: "no node takes the pod: 0/1 nodes are available"},
		{name: "not ready", change: starting(corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}),
			waiting: "container api is starting"},
		{name: "gate", change: func(f *aFork) {
			f.deployment.Status.AvailableReplicas = 0
			f.pods[1].Status.Conditions[0].Status = corev1.ConditionFalse
			f.pods[1].Status.Conditions = append(f.pods[1].Status.Conditions, corev1.PodCondition{
				Type: sandbox.ConditionRouted, Status: corev1.ConditionFalse, Reason: "RouterNotAcknowledged", Message: "the router of pod api-1 has not acknowledged the route yet",
			})
		}, waiting: "the router of pod api-1 has not acknowledged the route yet"},
		{name: "not admitted", change: func(f *aFork) { f.pods[1].Spec.ReadinessGates = nil }, waiting: "created without the webhook",
			problem: "deployment.apps/api-pr-42: pod/p1 was created without the webhook, so no request is routed to it", fix: "kubectl delete pod p1"},
		{name: "no ports, no gate", ready: true, change: func(f *aFork) {
			f.pods[1].Spec.ReadinessGates, f.deployment.Spec.Template.Annotations = nil, nil
		}},

		{name: "image not found", change: starting(waits("ErrImagePull", `rpc error: code = NotFound desc = failed to pull and unpack image "x": failed to resolve reference "x": x: not found`)),
			waiting: "can't be", problem: `image "api:2" of container api can't be pulled: failed to resolve reference "x": x: not found`, fix: "kubectl sandbox delete pr-42"},
		{name: "registry away", change: starting(waits("ErrImagePull", "dial tcp: connection refused")), waiting: "can't be", passing: true,
			problem: "can't be pulled: dial tcp: connection refused", fix: "kubectl sandbox delete pr-42"},
		{name: "image back-off", change: starting(waits("ImagePullBackOff", `Back-off pulling image "x": ErrImagePull: no such host`)), waiting: "can't be",
			problem: "can't be pulled: no such host", fix: "kubectl sandbox delete pr-42"},
		{name: "invalid image", change: starting(waits("InvalidImageName", "")), waiting: "no valid image name", problem: `image "api:2" of container api is no valid image name`, fix: "kubectl sandbox delete pr-42"},
		{name: "crash loop", change: starting(crashed), waiting: "ran out of memory", problem: "container api ran out of memory (OOMKilled)", fix: "kubectl sandbox delete pr-42"},
		{name: "config", change: starting(waits("CreateContainerConfigError", `secret "db" not found`)), waiting: "can't be",
			problem: `container api can't be started: secret "db" not found`, fix: "kubectl sandbox delete pr-42"},
		{name: "init container", change: func(f *aFork) {
			starting(waits("PodInitializing", ""))(f)
			f.pods[1].Status.InitContainerStatuses = []corev1.ContainerStatus{waits("RunContainerError", "exec: not found")}
		}, waiting: "can't be", problem: "can't be started: exec: not found", fix: "kubectl sandbox delete pr-42"},
		{name: "quota", passing: true, waiting: "created",
			change:  notCreated(`pods "api-pr-42-x" is forbidden: exceeded quota: team, requested: limits.cpu=500m,pods=1, used: limits.cpu=3800m,pods=9, limited: limits.cpu=4,pods=20`),
			problem: "no pod can be created: exceeded quota: team", fix: `kubectl patch resourcequota team --type=merge '--patch={"spec":{"hard":{"limits.cpu":"4300m","pods":"10"}}}'`},
		{name: "pod security", passing: true, waiting: "created", change: notCreated(`pods "api-pr-42-x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`),
			problem: `no pod can be created: it violates PodSecurity "restricted:latest"`, fix: "kubectl sandbox delete pr-42"},
		{name: "webhook away", passing: true, waiting: "created",
			change:  notCreated(`Internal error occurred: failed calling webhook "fork.kubectl-sandbox.dev": failed to call webhook: Post "https://sandbox-webhook.tools.svc:443/mutate-pods?timeout=5s": no endpoints available for service "sandbox-webhook"`),
			problem: `webhook does not answer, so no pod of a fork can be created: no endpoints available for service "sandbox-webhook"`,
			fix:     "kubectl scale deployment/sandbox-webhook --namespace=tools --replicas=2"},
		{name: "webhook of another", passing: true, waiting: "created", change: notCreated(`failed calling webhook "other.example.com": refused`),
			problem: `no pod can be created: failed calling webhook "other.example.com"`, fix: "kubectl sandbox delete pr-42"},
		{name: "no progress", waiting: "made no progress", change: func(f *aFork) {
			starting(corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})(f)
			f.deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded"}}
		}, problem: "made no progress", fix: "kubectl sandbox delete pr-42"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := ready()
			tt.change(&f)
			s := sandboxes.Diagnose(sandboxes.ForkFacts(&f.deployment, f.sets, f.pods, time.Now()))
			if s.Ready != tt.ready || !strings.Contains(s.Waiting, tt.waiting) || (s.Waiting == "") != (tt.waiting == "") {
				t.Errorf("ready %t, waiting %q; want %t, %q", s.Ready, s.Waiting, tt.ready, tt.waiting)
			}
			if s.Problem == nil {
				if tt.problem != "" {
					t.Errorf("no problem, want %q", tt.problem)
				}
				return
			}
			if tt.problem == "" || !strings.Contains(s.Problem.What, tt.problem) || plan.Quote(s.Problem.Fix) != tt.fix || s.Passing != tt.passing {
				t.Errorf("problem %q, fix %q, passing %t; want %q, %q, %t", s.Problem.What, plan.Quote(s.Problem.Fix), s.Passing, tt.problem, tt.fix, tt.passing)
			}
			if (s.Log != nil) != (tt.name == "crash loop") {
				t.Errorf("its log is %v", s.Log)
			}
		})
	}
}

func TestLastWords(t *testing.T) {
	for _, tt := range []struct{ log, want string }{
		{"", ""},
		{"a|b|c|d|e|f", "b|c|d|e|f"},
		{"starting|listening|panic: no config|goroutine 1 [running]:|main.main()", "starting|listening|panic: no config"},
	} {
		var log []string
		if tt.log != "" {
			log = strings.Split(tt.log, "|")
		}
		if got := strings.Join(plan.LogTail(log), "|"); got != tt.want {
			t.Errorf("%q ends with %q, want %q", tt.log, got, tt.want)
		}
	}
}
