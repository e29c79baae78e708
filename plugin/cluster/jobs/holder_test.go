package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// start begins the experiment r1, or resumes it, as its holder.
func start(ctx context.Context, kube *fake.Clientset) (*Experiment, error) {
	return experiments(kube).StartExperiment(ctx, report(time.Time{}), "spec", time.Time{}, true)
}

// change changes data of the experiment's ConfigMap.
func change(t *testing.T, kube *fake.Clientset, data map[string]string) {
	t.Helper()
	cm := stored(t, kube)
	for key, value := range data {
		cm.Data[key] = value
	}
	if err := kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), cm, "shop"); err != nil {
		t.Error(err)
	}
}

func stored(t *testing.T, kube *fake.Clientset) *corev1.ConfigMap {
	t.Helper()
	object, err := kube.Tracker().Get(corev1.SchemeGroupVersion.WithResource("configmaps"), "shop", sandbox.RunName("r1"))
	if err != nil {
		t.Fatal(err)
	}
	return object.(*corev1.ConfigMap).DeepCopy() //nolint:forcetypeassert // by its resource
}

func TestStartExperiment_TakesOverOnlyFromAHolderThatIsGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*testing.T, *fake.Clientset, *Experiment)
		after  time.Duration // until it is the holder, or is refused
		what   string        // the problem, if it is refused
	}{
		{"one that released it", func(t *testing.T, kube *fake.Clientset, e *Experiment) {
			experiments(kube).Release(t.Context(), e)
		}, 0, ""},
		{"one that is silent", func(*testing.T, *fake.Clientset, *Experiment) {}, holderTimeout, ""},
		{"not one with a heartbeat", func(t *testing.T, kube *fake.Clientset, _ *Experiment) {
			time.AfterFunc(heartbeatInterval, func() { change(t, kube, map[string]string{dataHeartbeat: "1"}) })
		}, heartbeatInterval, "is being run by another client; choose another --id"},
		{"one that releases it meanwhile", func(t *testing.T, kube *fake.Clientset, _ *Experiment) {
			time.AfterFunc(heartbeatInterval, func() { change(t, kube, map[string]string{dataHolder: ""}) })
		}, heartbeatInterval, ""},
		{"one that is silent after an outage", func(_ *testing.T, kube *fake.Clientset, _ *Experiment) {
			refuseAfter(kube, holderTimeout/2+time.Second/2, "get", "configmaps", 1, apierrors.NewServiceUnavailable("down"))
		}, holderTimeout + holderTimeout/2 + time.Second, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kube := newServer()
				first, err := start(t.Context(), kube)
				if err != nil {
					t.Fatal(err)
				}
				tt.before(t, kube, first)
				began := time.Now()
				second, err := start(t.Context(), kube)
				took := time.Since(began)
				if took < tt.after || took > tt.after+2*time.Second {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				if tt.what != "" {
					explains(t, err, tt.what, "kubectl sandbox report r1 --wait")
					return
				}
				if err != nil || second.Began || second.holder == "" || stored(t, kube).Data[dataHolder] != second.holder {
					t.Fatalf("got %+v, error %v", second, err)
				}
				err = experiments(kube).SaveReport(t.Context(), first)
				if explains(t, err, "another client runs it now", "report r1"); !errors.Is(err, ErrNotHolder) {
					t.Errorf("the former holder got %v", err)
				}
				if err := experiments(kube).SaveReport(t.Context(), second); err != nil {
					t.Errorf("the holder got %v", err)
				}
			})
		})
	}
}

func TestStartExperiment_EndsWaitingWithTheExperiment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := newServer()
		first, err := start(t.Context(), kube)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second+time.Second/2, func() {
			first.Report.Window.Ended = time.Now()
			if err := experiments(kube).SaveReport(t.Context(), first); err != nil {
				t.Error(err)
			}
		})
		_, err = start(t.Context(), kube)
		explains(t, err, `experiment "r1" has ended, at `, "kubectl sandbox report r1")
	})
}

// Of a lost answer, the client's own write made its retry fail.
func TestStartExperiment_KnowsItsOwnLostWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := newServer()
		if _, err := start(t.Context(), kube); err != nil {
			t.Fatal(err)
		}
		change(t, kube, map[string]string{dataHolder: ""})
		loseAnswer(kube)
		e, err := start(t.Context(), kube)
		if err != nil || stored(t, kube).Data[dataHolder] != e.holder {
			t.Errorf("got %+v, error %v", e, err)
		}
	})
}

func TestSendHeartbeats(t *testing.T) {
	for _, tt := range []struct {
		name  string
		taken bool // by another client
	}{{"until it is to end", false}, {"until another client is the holder", true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kube := newServer()
				e, err := start(t.Context(), kube)
				if err != nil {
					t.Fatal(err)
				}
				before := stored(t, kube).Data[dataHeartbeat]
				ctx, cancel := context.WithTimeout(t.Context(), 3*heartbeatInterval+time.Second)
				defer cancel()
				if tt.taken {
					time.AfterFunc(heartbeatInterval+time.Second, func() { change(t, kube, map[string]string{dataHolder: "other"}) })
				}
				if err := experiments(kube).SendHeartbeats(ctx, e); errors.Is(err, ErrNotHolder) != tt.taken {
					t.Errorf("got %v", err)
				}
				if stored(t, kube).Data[dataHeartbeat] == before {
					t.Error("there was no heartbeat")
				}
			})
		})
	}
}

func TestAbandonExperiment_DeletesNothingOfAnotherHolder(t *testing.T) {
	kube := newServer(variantSandbox("a", "r1"))
	e, err := start(t.Context(), kube)
	if err != nil {
		t.Fatal(err)
	}
	change(t, kube, map[string]string{dataHolder: "other"})
	left, err := experiments(kube).AbandonExperiment(t.Context(), e, []string{"a"})
	list, listErr := kube.CoreV1().ConfigMaps("shop").List(t.Context(), metav1.ListOptions{})
	if !errors.Is(err, ErrNotHolder) || len(left) > 0 || listErr != nil || len(list.Items) != 2 {
		t.Errorf("left %q, error %v; %d objects", left, err, len(list.Items))
	}
}

func TestSaveReport_OfAnExperimentThatWasDeleted(t *testing.T) {
	kube := newServer()
	e, err := start(t.Context(), kube)
	if err != nil {
		t.Fatal(err)
	}
	if err := kube.CoreV1().ConfigMaps("shop").Delete(t.Context(), e.ConfigMap.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	explains(t, experiments(kube).SaveReport(t.Context(), e), `experiment "r1" was deleted`, "report r1")
}

func TestStartExperiment_Expires(t *testing.T) {
	kube := newServer()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("CET", 3600))
	if _, err := experiments(kube).StartExperiment(t.Context(), report(time.Time{}), "spec", at, false); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, kube).Data[sandbox.DataExpires]; got != "2026-03-01T11:00:00Z" {
		t.Errorf("expires %s", got)
	}
	refuse(kube, "create", "configmaps", -1, forbidden("configmaps", "x", `User "jane" cannot create it`))
	_, err := start(t.Context(), kube)
	explains(t, err, "not allowed", "kubectl create rolebinding sandbox-jane")
	if !strings.Contains(err.Error(), `User "jane"`) {
		t.Errorf("got %v", err)
	}
}
