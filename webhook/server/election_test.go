package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

var testLease = types.NamespacedName{Namespace: "ns", Name: "lease"}

// follower runs until its context ends, and takes a while to end.
type follower struct {
	running atomic.Bool
	err     chan error
}

func (f *follower) Start(ctx context.Context) error {
	f.running.Store(true)
	defer f.running.Store(false)
	select {
	case err := <-f.err:
		return err
	case <-ctx.Done():
		time.Sleep(50 * time.Millisecond)
		return nil
	}
}

func newTestLead(client *fake.Clientset, identity string) (*election, *follower) {
	f := &follower{err: make(chan error)}
	return &election{
		lock: lock(client.CoordinationV1(), testLease, identity), members: []manager.Runnable{f},
		timing: timing{lease: 30 * time.Second, renew: 20 * time.Second, retry: 20 * time.Millisecond},
	}, f
}

func run(t *testing.T, l *election) (stop func(), done <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Start(ctx) }()
	t.Cleanup(cancel)
	return cancel, ended
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestLead_HandsOverWithOneHolderAtATime(t *testing.T) {
	client := fake.NewClientset()
	first, a := newTestLead(client, "a")
	second, b := newTestLead(client, "b")
	stop, done := run(t, first)
	eventually(t, "the first leads", a.running.Load)
	run(t, second)
	time.Sleep(100 * time.Millisecond) // some retries
	if b.running.Load() {
		t.Fatal("two lead at once")
	}
	stop()
	eventually(t, "the second leads", func() bool {
		if !b.running.Load() {
			return false
		}
		if a.running.Load() {
			t.Fatal("the second leads before the first has ended")
		}
		return true
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLead_EndsItsFollowersWhenTheAPIServerIsAway(t *testing.T) {
	client := fake.NewClientset()
	var away atomic.Bool
	client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, errors.New("no API server")
	})
	l, f := newTestLead(client, "a")
	l.timing.lease, l.timing.renew = 2*time.Second, time.Second
	_, done := run(t, l)
	eventually(t, "it leads", f.running.Load)
	away.Store(true)
	if err := <-done; !errors.Is(err, errLeaseLost) {
		t.Errorf("got %v, want %v", err, errLeaseLost)
	}
	if f.running.Load() {
		t.Error("a follower outlives the lease")
	}
}

func TestLead_GivesUpTheLeaseWhenAFollowerFails(t *testing.T) {
	client := fake.NewClientset()
	l, f := newTestLead(client, "a")
	_, done := run(t, l)
	eventually(t, "it leads", f.running.Load)
	broken := errors.New("broken")
	f.err <- broken
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	lease, err := client.CoordinationV1().Leases(testLease.Namespace).Get(t.Context(), testLease.Name, metav1.GetOptions{})
	if err != nil || ptr.Deref(lease.Spec.HolderIdentity, "") != "" {
		t.Errorf("the lease is still held: %v, %v", lease.Spec.HolderIdentity, err)
	}
}

func TestLead_EndsBeforeItEverLed(t *testing.T) {
	client := fake.NewClientset()
	first, a := newTestLead(client, "a")
	run(t, first)
	eventually(t, "another leads", a.running.Load)
	second, _ := newTestLead(client, "b")
	stop, done := run(t, second)
	time.Sleep(50 * time.Millisecond) // some retries
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
