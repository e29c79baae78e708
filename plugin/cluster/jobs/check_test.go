package jobs

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func checkJob() *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "check-1", Labels: map[string]string{sandbox.LabelRun: "r1"}},
		Spec: batchv1.JobSpec{
			BackoffLimit: ptr.To[int32](0),
			Template:     corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "test"}}}},
		},
	}
}

// checkPod is the Job's pod: its test runs or, with ended, has ended with that status, and the router has reported.
func checkPod(ended *int32) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "check-1-x", UID: "pod",
			Labels: map[string]string{sandbox.LabelRole: sandbox.RoleCheck, batchv1.ControllerUidLabel: "uid-of-check-1"},
		},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{
				Name: sandbox.RouterContainer, RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
			}},
			Containers: []corev1.Container{{Name: "test"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "test", Started: ptr.To(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}},
	}
	if ended != nil {
		p.Status.Phase = corev1.PodSucceeded
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: *ended, StartedAt: metav1.Now()},
		}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: sandbox.RouterContainer,
			State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Message: `{"begun":7,"answered":7}`},
			},
		}}
	}
	return p
}

// end marks the Job as ended, as its controller does.
func end(t *testing.T, kube *fake.Clientset, of batchv1.JobConditionType, reason string) {
	t.Helper()
	jobs := kube.BatchV1().Jobs("shop")
	job, err := jobs.Get(t.Context(), "check-1", metav1.GetOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	job.Status.Conditions = []batchv1.JobCondition{{Type: of, Status: corev1.ConditionTrue, Reason: reason}}
	if _, err := jobs.UpdateStatus(t.Context(), job, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}

// A scene is a run of a check in the sandbox a.
type scene struct {
	kube   *fake.Clientset
	c      *Experiments
	x      *Experiment
	job    CheckJob
	waited []string // what the Job was said to wait for
}

// newScene begins an experiment; observed is what routers count each time that they are asked.
func newScene(t *testing.T, observed ...string) *scene {
	t.Helper()
	s := &scene{kube: newServer(
		&corev1.ConfigMap{
			ObjectMeta: role("sandbox-a", sandbox.RoleSandbox, "a"), Data: map[string]string{sandbox.DataKey: "a"},
		},
		&appsv1.Deployment{ObjectMeta: role("api-a", sandbox.RoleFork, "a")},
	)}
	s.c = experiments(s.kube)
	x, err := s.c.StartExperiment(t.Context(), report(time.Time{}), "spec", time.Time{}, false)
	if err != nil {
		t.Fatal(err)
	}
	s.x = x
	s.job = CheckJob{
		Job:    checkJob(),
		Limits: suite.Limits{Test: time.Minute, By: "--timeout", Start: time.Minute, Admission: time.Minute},
		Waits:  func(what string) { s.waited = append(s.waited, what) },
	}
	last := ""
	countRequests(s.kube, func() string {
		if len(observed) > 0 {
			last, observed = observed[0], observed[1:]
		}
		return last
	})
	return s
}

func (s *scene) check(ctx context.Context) (*experiment.Evidence, []string, error) {
	defer time.Sleep(2 * time.Second) // until the last watch has ended
	return s.c.Check(ctx, s.x, &suite.Variant{Name: "a", Sandbox: "a", Key: "a"}, s.job)
}

func TestCheck_CollectsTheEvidence(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int32
		of     batchv1.JobConditionType
		log    []string
	}{
		{"of a test that passed", 0, batchv1.JobComplete, nil},
		{"of a test that failed", 3, batchv1.JobFailed, []string{"fake logs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, `{"a":{"web":{"requests":1}}}`, "", `{"a":{"web":{"requests":4,"failed":2}}}`)
				time.AfterFunc(4*time.Second, func() {
					_ = s.kube.Tracker().Add(checkPod(nil))
				})
				time.AfterFunc(8*time.Second, func() {
					_ = s.kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), checkPod(&tt.status), "shop")
					end(t, s.kube, tt.of, "BackoffLimitExceeded")
				})
				e, log, err := s.check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if e.Job.Complete != (tt.status == 0) || e.Job.Exit != tt.status || e.Job.Pods != 1 || !slices.Equal(log, tt.log) {
					t.Errorf("got %+v, log %q", e.Job, log)
				}
				if e.Sent == nil || e.Sent.Answered != 7 {
					t.Errorf("the check sent %+v, want 7 answered", e.Sent)
				}
				if !e.Before.Exists || !e.After.Counted || len(e.After.Forks) != 1 || e.After.Forks[0].Name != "api-a" {
					t.Errorf("got %+v before, %+v after", e.Before, e.After)
				}
				if got := e.Passed["web"]; got.Requests != 3 || got.Failed != 2 {
					t.Errorf("web passed on %+v, want what came since the check began", got)
				}
				if !slices.Contains(s.waited, "the Job has no pod yet") {
					t.Errorf("was said to wait for %q", s.waited)
				}
			})
		})
	}
}

func TestCheck_StopsAJobThatCantEnd(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*batchv1.Job)
		pod    bool
		ends   bool   // once it was stopped
		call   string // that stops it
		limit  string
		broken string
	}{
		{"of a test that takes too long", func(*batchv1.Job) {}, true, true, "patch check-1", "1m0s (--timeout)", ""},
		{"even if its controller is away", func(*batchv1.Job) {}, true, false, "patch check-1", "1m0s (--timeout)", ""},
		{"that nobody resumes", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) }, false, true, "delete check-1", "",
			"nobody resumed it within 1m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				tt.change(s.job.Job)
				if tt.pod {
					_ = s.kube.Tracker().Add(checkPod(nil))
				}
				s.kube.PrependReactor("patch", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
					if tt.ends {
						time.AfterFunc(time.Second, func() { end(t, s.kube, batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded) })
					}
					return false, nil, nil
				})
				e, _, err := s.check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got := calls(s.kube, "jobs"); !slices.Contains(got, tt.call) {
					t.Errorf("calls %q, want %q", got, tt.call)
				}
				broken := ""
				if e.Job.Broken != nil {
					broken = e.Job.Broken.Message
				}
				if e.Job.Complete || e.Job.TimedOut != tt.limit || !strings.Contains(broken, tt.broken) {
					t.Errorf("got %+v, broken %q", e.Job, broken)
				}
			})
		})
	}
}

func TestCheck_ThatCantBegin(t *testing.T) {
	const exceeded = "exceeded quota: pods, requested: pods=1"
	warning := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "e"}, Type: corev1.EventTypeWarning, Reason: "FailedCreate",
		Message: `Error creating: pods "x" is forbidden: ` + exceeded,
	}
	for _, tt := range []struct {
		name  string
		setUp func(*fake.Clientset)
		quota bool
		fails string   // of another kind
		job   string   // why it is not there, in the evidence
		calls []string // of the Job
	}{
		{"for a quota of Jobs", func(k *fake.Clientset) {
			refuse(k, "create", "jobs", -1, forbidden("jobs", "check-1", exceeded))
		}, true, "", "", []string{"create check-1"}},
		{"for a quota of pods", func(k *fake.Clientset) { _ = k.Tracker().Add(warning) }, true, "", "",
			[]string{"create check-1", "delete check-1"}},
		{"for a policy", func(k *fake.Clientset) {
			refuse(k, "create", "jobs", -1, forbidden("jobs", "check-1", "policy says no"))
		}, false, "", "policy says no", []string{"create check-1"}},
		{"for a Job of another experiment", func(k *fake.Clientset) {
			other := checkJob()
			other.Labels[sandbox.LabelRun] = "another"
			_ = k.Tracker().Add(other)
		}, false, "", "job/check-1 is there already, and not of experiment r1", []string{"create check-1"}},
		{"for state that may not be read", func(k *fake.Clientset) {
			refuse(k, "list", "services", -1, forbidden("services", "", "no rights"))
		}, false, "not allowed: services", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				tt.setUp(s.kube)
				e, _, err := s.check(t.Context())
				var quota *QuotaError
				switch {
				case errors.As(err, &quota) != tt.quota:
					t.Errorf("got %v", err)
				case tt.quota && !strings.Contains(err.Error(), exceeded):
					t.Errorf("got %v, want it to name %q", err, exceeded)
				case tt.fails != "":
					explains(t, err, tt.fails, "")
				case !tt.quota && (err != nil || e.Job.Broken == nil || !strings.Contains(e.Job.Broken.Message, tt.job)):
					t.Errorf("got %+v, error %v", e, err)
				}
				if got := calls(s.kube, "jobs"); !slices.Equal(got, tt.calls) {
					t.Errorf("calls %q, want %q", got, tt.calls)
				}
			})
		})
	}
}

func TestCheck_LastsThroughAnOutageOfTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		refuse(s.kube, "create", "jobs", 3, apierrors.NewServiceUnavailable("down"))
		time.AfterFunc(10*time.Second, func() {
			_ = s.kube.Tracker().Add(checkPod(ptr.To[int32](0)))
			end(t, s.kube, batchv1.JobComplete, "")
		})
		e, _, err := s.check(t.Context())
		if err != nil || !e.Job.Complete {
			t.Errorf("got %+v, error %v", e, err)
		}
	})
}

func TestCheck_ReplacesAJobThatNobodyObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		old := checkJob()
		old.UID = "old"
		_ = s.kube.Tracker().Add(old)
		time.AfterFunc(10*time.Second, func() {
			_ = s.kube.Tracker().Add(checkPod(ptr.To[int32](0)))
			end(t, s.kube, batchv1.JobComplete, "")
		})
		_, _, err := s.check(t.Context())
		got, want := calls(s.kube, "jobs"), []string{"create check-1", "delete check-1", "create check-1"}
		if err != nil || len(got) < 3 || !slices.Equal(got[:3], want) {
			t.Errorf("calls %q, want %q, error %v", got, want, err)
		}
	})
}

func TestCheck_LeavesTheJobWhenInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, _, err := s.check(ctx)
		if got := calls(s.kube, "jobs"); !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(got, []string{"create check-1"}) {
			t.Errorf("calls %q, error %v", got, err)
		}
	})
}

func TestCompare_ReadsWhatTheProbePrinted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refused error // of the log
		printed string
		what    string // a problem
	}{
		{"whole", nil, "fake logs", ""},
		{"of a pod that is gone", apierrors.NewNotFound(corev1.Resource("pods"), "check-1-x"), "", ""},
		{"only with the right to", forbidden("pods", "check-1-x", "no rights"), "", `pods "check-1-x" is forbidden`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, "", "", `{"base":{"web":{"requests":2}}}`)
				s.kube.PrependReactor("get", "pods/log", func(clienttesting.Action) (bool, runtime.Object, error) {
					return tt.refused != nil, nil, tt.refused
				})
				time.AfterFunc(4*time.Second, func() {
					_ = s.kube.Tracker().Add(checkPod(ptr.To[int32](0)))
					end(t, s.kube, batchv1.JobComplete, "")
				})
				defer time.Sleep(2 * time.Second)
				variants := []suite.Variant{{Name: "a", Sandbox: "a", Key: "a"}, {Name: "b", Sandbox: "gone", Key: "b"}}
				all, printed, log, err := s.c.Compare(t.Context(), s.x, variants, "base", s.job)
				if tt.what != "" {
					explains(t, err, tt.what, "")
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(printed)
				if string(b) != tt.printed || len(log) > 0 {
					t.Errorf("printed %q, log %q", b, log)
				}
				if len(all) != 2 || !all[0].After.Exists || all[1].After.Exists || !all[1].Job.Complete {
					t.Errorf("got %+v", all)
				}
			})
		})
	}
}
