package sandboxes

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A ForkStatus is the diagnosis of a fork, for commands that wait for it or print it.
type ForkStatus struct {
	health.Report
	// Ready means that there is nothing to wait for: requests reach the fork, at least some of them; or the fork has
	// no replicas.
	Ready bool
	// Waiting is why requests do not reach the fork; empty if they do.
	Waiting string
	// Problem is set if waiting may not help.
	Problem *plan.Problem
	// Passing means that the Problem disappears within seconds once its cause has.
	Passing bool
	// Log is the container whose last log lines explain the Problem, if any.
	Log *health.LogRef
	// Pods are those of the newest template, in order of name.
	Pods []corev1.Pod
}

// ForkFacts returns the facts about the fork d that its own ReplicaSets and pods hold. sets and pods are those of its
// sandbox.
func ForkFacts(d *appsv1.Deployment, sets []appsv1.ReplicaSet, pods []corev1.Pod, now time.Time) health.Facts {
	f := health.Facts{Now: now, Deployment: d, Revisions: map[types.UID]int64{}}
	mine := map[types.UID]bool{}
	for i := range sets {
		if metav1.IsControlledBy(&sets[i], d) {
			mine[sets[i].UID] = true
		}
	}
	for uid, revision := range health.Revisions(sets, func(s *appsv1.ReplicaSet) (types.UID, map[string]string) { return s.UID, s.Annotations }) {
		if mine[uid] {
			f.Revisions[uid] = revision
		}
	}
	for i := range pods {
		if owner := metav1.GetControllerOf(&pods[i]); owner != nil && mine[owner.UID] {
			f.Pods = append(f.Pods, &pods[i])
		}
	}
	return f
}

// BaselineFacts returns the facts about the baseline of the fork d, from all pods and Services of its namespace.
func BaselineFacts(d *appsv1.Deployment, pods []corev1.Pod, services []corev1.Service) *health.Baseline {
	b := &health.Baseline{Services: &[]*corev1.Service{}, Others: &[]*corev1.Pod{}}
	for i := range services {
		*b.Services = append(*b.Services, &services[i])
	}
	for i := range pods {
		switch l := pods[i].Labels; {
		case l[sandbox.LabelRole] == sandbox.RoleBaseline && l[sandbox.LabelWorkload] == d.Labels[sandbox.LabelWorkload]:
			b.Pods = append(b.Pods, &pods[i])
		case l[sandbox.LabelRole] != sandbox.RoleFork && l[sandbox.LabelRole] != sandbox.RoleCheck:
			*b.Others = append(*b.Others, &pods[i])
		}
	}
	return b
}

// Diagnose turns facts about a fork into its status.
func Diagnose(f health.Facts) ForkStatus {
	r := health.Fork(f)
	s := ForkStatus{Report: r}
	for _, p := range r.Pods {
		s.Pods = append(s.Pods, *p)
	}
	c := r.Cause()
	s.Ready = r.OK() || c.Code == health.ScaledToZero || c.Partial
	if s.Ready {
		return s
	}
	s.Waiting = c.Message
	if c.Outlook == health.OutlookWaits {
		return s
	}
	s.Problem, s.Passing = CauseProblem(f.Deployment, c), c.Outlook == health.OutlookMayPass
	if c.Log != nil && c.Log.Previous {
		s.Log = c.Log
	}
	return s
}

// CauseProblem returns the Problem of a fork that requests do not reach.
func CauseProblem(d *appsv1.Deployment, c health.Cause) *plan.Problem {
	p := &plan.Problem{What: plan.DeploymentName(d.Name) + ": " + c.Message, Hint: c.Say, Fix: c.Fix, Admin: c.Admin, Code: string(c.Code), Object: plan.DeploymentName(d.Name)}
	if c.Code == health.WebhookAway {
		p.What = c.Message
	}
	return p
}
