package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func runJob() *batchv1.Job {
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: sandbox.RunJobName("r1"), Labels: map[string]string{sandbox.LabelRun: "r1"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "ConfigMap", UID: "uid-of-sandbox-run.r1"}},
	}}
	job.Spec.Template.Spec.ServiceAccountName = "tester"
	return job
}

func suites(run string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: sandbox.RunSuitesName("r1"), Labels: map[string]string{sandbox.LabelRun: run},
		},
		Data: map[string]string{"suite": run},
	}
}

func TestDispatch(t *testing.T) {
	ended := runJob()
	ended.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
	for _, tt := range []struct {
		name  string
		setUp func(*fake.Clientset)
		what  string   // a problem
		calls []string // of ConfigMaps and Jobs, after the experiment was created
	}{
		{"creates the Job and its suites", func(*fake.Clientset) {}, "",
			[]string{"create sandbox-run.r1.suites", "create sandbox-run-r1"}},
		{"names a ServiceAccount that is missing", func(k *fake.Clientset) {
			_ = k.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("serviceaccounts"), "shop", "tester")
		}, `--service-account: serviceaccount "tester" not found in namespace "shop"`, nil},
		{"needs no right to read ServiceAccounts", func(k *fake.Clientset) {
			refuse(k, "get", "serviceaccounts", -1, forbidden("serviceaccounts", "tester", "no"))
		}, "", []string{"create sandbox-run.r1.suites", "create sandbox-run-r1"}},
		{"leaves a Job that runs it", func(k *fake.Clientset) { _ = k.Tracker().Add(runJob()) }, "", nil},
		{"replaces a Job that has ended", func(k *fake.Clientset) { _ = k.Tracker().Add(ended) }, "",
			[]string{"create sandbox-run.r1.suites", "create sandbox-run-r1", "delete sandbox-run-r1", "create sandbox-run-r1"}},
		{"updates suites of a former run", func(k *fake.Clientset) { _ = k.Tracker().Add(suites("r1")) }, "",
			[]string{"create sandbox-run.r1.suites", "update sandbox-run.r1.suites", "create sandbox-run-r1"}},
		{"takes no ConfigMap of somebody else's", func(k *fake.Clientset) { _ = k.Tracker().Add(suites("another")) },
			"configmap/sandbox-run.r1.suites is there already, and not of experiment r1", []string{"create sandbox-run.r1.suites"}},
		{"explains what it may not do", func(k *fake.Clientset) {
			refuse(k, "create", "jobs", -1, forbidden("jobs", "x", "no"))
		}, "not allowed: jobs", []string{"create sandbox-run.r1.suites", "create sandbox-run-r1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kube := newServer(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tester"}})
				e, err := experiments(kube).StartExperiment(t.Context(), report(time.Time{}), "spec", time.Time{}, false)
				if err != nil {
					t.Fatal(err)
				}
				tt.setUp(kube)
				err = experiments(kube).Dispatch(t.Context(), e, suites("r1"), runJob())
				if tt.what != "" {
					explains(t, err, tt.what, "")
				} else if err != nil {
					t.Error(err)
				}
				if got := append(calls(kube, "configmaps")[1:], calls(kube, "jobs")...); !slices.Equal(got, tt.calls) {
					t.Errorf("calls %q, want %q", got, tt.calls)
				}
			})
		})
	}
}

// The Job would run the same checks as the client that holds the experiment.
func TestDispatch_WaitsForTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := newServer(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tester"}})
		if _, err := start(t.Context(), kube); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(heartbeatInterval, func() { change(t, kube, map[string]string{dataHeartbeat: "1"}) })
		e, err := experiments(kube).StartExperiment(t.Context(), report(time.Time{}), "spec", time.Time{}, false)
		if err != nil {
			t.Fatal(err)
		}
		err = experiments(kube).Dispatch(t.Context(), e, suites("r1"), runJob())
		explains(t, err, "is being run by another client", "report r1 --wait")
		if got := calls(kube, "jobs"); len(got) > 0 {
			t.Errorf("calls %q", got)
		}
	})
}

func TestWaitExperiment(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(*testing.T, *fake.Clientset, *Experiment)
		after time.Duration
		what  string // a problem
		fix   string
		err   error
	}{
		{"until it has ended", func(t *testing.T, k *fake.Clientset, e *Experiment) {
			time.AfterFunc(15*time.Second, func() {
				e.Report.Window.Ended = time.Now()
				if err := experiments(k).SaveReport(t.Context(), e); err != nil {
					t.Error(err)
				}
			})
		}, 15 * time.Second, "", "", nil},
		{"until nobody runs it any more", func(*testing.T, *fake.Clientset, *Experiment) {}, holderTimeout,
			"experiment r1 has not ended, and nobody runs it", "kubectl sandbox report r1", nil},
		{"while its holder has a heartbeat", func(t *testing.T, k *fake.Clientset, e *Experiment) {
			go func() { _ = experiments(k).SendHeartbeats(t.Context(), e) }()
		}, time.Minute, "", "", context.DeadlineExceeded},
		{"while its Job runs", func(_ *testing.T, k *fake.Clientset, _ *Experiment) { _ = k.Tracker().Add(runJob()) },
			time.Minute, "", "", context.DeadlineExceeded},
		{"until its Job has ended without it", func(_ *testing.T, k *fake.Clientset, _ *Experiment) {
			job := runJob()
			job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
			_ = k.Tracker().Add(job)
		}, holderTimeout, "experiment r1 was not done", "kubectl logs job/sandbox-run-r1", nil},
		{"not where it may not", func(_ *testing.T, k *fake.Clientset, _ *Experiment) {
			refuse(k, "get", "jobs", -1, forbidden("jobs", "x", "no rights"))
		}, 0, "not allowed: jobs", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kube := newServer()
				e, err := start(t.Context(), kube)
				if err != nil {
					t.Fatal(err)
				}
				tt.setUp(t, kube, e)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				got, err := experiments(kube).WaitExperiment(ctx, "r1")
				if took := time.Since(began); took < tt.after || took > tt.after+3*time.Second {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				switch {
				case tt.what != "":
					explains(t, err, tt.what, tt.fix)
				case !errors.Is(err, tt.err) || err == nil && got.Report.Window.Ended.IsZero():
					t.Errorf("got %+v, error %v", got, err)
				}
			})
		})
	}
}

func TestWaitExperiment_CountsNoOutageAsSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := newServer()
		e, err := start(t.Context(), kube)
		if err != nil {
			t.Fatal(err)
		}
		refuseAfter(kube, time.Second, "get", "*", 30, apierrors.NewServiceUnavailable("down"))
		time.AfterFunc(40*time.Second, func() {
			e.Report.Window.Ended = time.Now()
			if err := experiments(kube).SaveReport(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
		if _, err := experiments(kube).WaitExperiment(t.Context(), "r1"); err != nil {
			t.Error(err)
		}
	})
}

func TestPluginImage_SaysWhatIsNotInstalled(t *testing.T) {
	kube := newServer()
	_, err := experiments(kube).PluginImage(t.Context())
	explains(t, err, "--wait=false: the cluster's chart names no image of the plugin", "kubectl sandbox version")
	if err == nil || !strings.Contains(err.Error(), "it is not installed, or of an older version") {
		t.Errorf("got %v", err)
	}
}
