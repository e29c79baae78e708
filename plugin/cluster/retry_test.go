package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestRetry(t *testing.T) {
	down, refused := apierrors.NewServiceUnavailable("down"), &net.OpError{Op: "dial", Err: errors.New("refused")}
	answer := apierrors.NewNotFound(corev1.Resource("pods"), "x")
	for _, tt := range []struct {
		name  string
		times int // that it fails
		err   error
		after time.Duration
		want  error
	}{
		{"a short outage", 3, down, 3 * RetryInterval, nil},
		{"a server that can't be reached", 3, fmt.Errorf("get: %w", refused), 3 * RetryInterval, nil},
		{"a long outage, and gives up", 1000, down, retryTimeout, down},
		{"no answer", 1000, answer, 0, answer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := Retry(t.Context(), func() error {
					if tt.times--; tt.times < 0 {
						return nil
					}
					return tt.err
				})
				if took := time.Since(began); !errors.Is(err, tt.want) || took < tt.after || took > tt.after+2*RetryInterval {
					t.Errorf("got %v after %s, want %v after %s", err, took, tt.want, tt.after)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := Retry(ctx, func() error { return down }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: got %v", err)
		}
	})
}

// A seen is what a watch of pods found.
type seen struct {
	pods   map[string]bool
	resets int
}

func TestWatchObjects_BeginsAgainWhenTheServerEndsIt(t *testing.T) {
	gone := &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: 410}
	for _, tt := range []struct {
		name string
		last runtime.Object // an error that the API server sends; nil: it ends the watch
		err  bool           // is reported
	}{{"without a word", nil, false}, {"as its version is too old", gone, false},
		{"as it is broken", &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: 500}, true}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opened := 0
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				open := func(context.Context, metav1.ListOptions) (watch.Interface, error) {
					opened++
					w := watch.NewFakeWithChanSize(3, false)
					if opened == 1 {
						w.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "old"}})
						if tt.last != nil {
							w.Error(tt.last)
						}
						w.Stop()
						return w, nil
					}
					w.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "new"}})
					w.Delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "away"}})
					context.AfterFunc(ctx, w.Stop)
					return w, nil
				}
				known, failed := &seen{}, error(nil)
				events := make(chan func(*seen) error)
				go WatchObjects(ctx, metav1.ListOptions{}, open, events,
					func(s *seen) { s.pods = map[string]bool{}; s.resets++ },
					func(s *seen, p *corev1.Pod, deleted bool) { s.pods[p.Name] = !deleted })
				for end := time.After(time.Minute); ; {
					select {
					case event := <-events:
						if err := event(known); err != nil {
							failed = err
						}
						continue
					case <-end:
					}
					break
				}
				_, old := known.pods["old"]
				if known.resets != 2 || old || !known.pods["new"] || known.pods["away"] || (failed != nil) != tt.err {
					t.Errorf("got %+v, error %v", known, failed)
				}
			})
		})
	}
}

func TestWatchObjects_ExplainsThatItMayNot(t *testing.T) {
	events := make(chan func(*seen) error)
	go WatchObjects(t.Context(), metav1.ListOptions{},
		func(context.Context, metav1.ListOptions) (watch.Interface, error) {
			return nil, apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no"))
		}, events, func(*seen) {}, func(*seen, *corev1.Pod, bool) {})
	if err := (<-events)(&seen{}); err == nil || err.Error() != `not allowed: pods is forbidden: no` {
		t.Errorf("got %v", err)
	}
}

func TestLastWarning(t *testing.T) {
	at := func(name, message string, minute int) *corev1.Event {
		return &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Message: message,
			LastTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 12, minute, 0, 0, time.UTC)),
		}
	}
	series := at("c", "seen again\nand more", 0)
	series.Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(time.Date(2026, 1, 1, 12, 9, 0, 0, time.UTC))}
	created := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "d"}, Message: "new",
		EventTime: metav1.NewMicroTime(time.Date(2026, 1, 1, 12, 8, 0, 0, time.UTC)),
	}
	kube := fake.NewClientset(at("a", "first", 1), at("b", "second", 5), created)
	c := &Client{Namespace: "shop", Kube: kube}
	if got := LastWarning(t.Context(), c, "shop", "x=y"); got != "new" {
		t.Errorf("got %q", got)
	}
	_ = kube.Tracker().Add(series)
	if got := LastWarning(t.Context(), c, "shop", "x=y"); got != "seen again" {
		t.Errorf("got %q", got)
	}
	kube.PrependReactor("list", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("events"), "", errors.New("no"))
	})
	if got := LastWarning(t.Context(), c, "shop", "x=y"); got != "" {
		t.Errorf("got %q where events may not be read", got)
	}
}
