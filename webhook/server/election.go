package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// timing holds the durations of an election.
type timing struct{ lease, renew, retry time.Duration }

// standardTiming is that of Kubernetes' own controllers, except for the retry: a released lease is taken within a
// second.
func standardTiming() timing {
	return timing{lease: 15 * time.Second, renew: 10 * time.Second, retry: time.Second}
}

var errLeaseLost = errors.New("lease lost")

// An election runs its members while this process holds the lease, once. It is a manager.Runnable of every replica. It
// replaces the manager's own election, which ends the process when the lease is lost.
type election struct {
	lock    resourcelock.Interface
	timing  timing
	members []manager.Runnable
}

func newElection(config *rest.Config, lease types.NamespacedName, identity string) (*election, error) {
	timing := standardTiming()
	config = rest.CopyConfig(config)
	config.Timeout = timing.renew / 2 // one request that hangs must not cost the lease
	client, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &election{lock: lock(client, lease, identity), timing: timing}, nil
}

func lock(client coordinationv1.LeasesGetter, lease types.NamespacedName, identity string) resourcelock.Interface {
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: lease.Namespace, Name: lease.Name},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
}

// NeedLeaderElection returns false: the election itself takes the lease.
func (*election) NeedLeaderElection() bool { return false }

// Start competes for the lease until ctx ends. When the lease is lost, or a member fails, it stops all members, and
// then releases the lease, so that the next holder is alone.
func (l *election) Start(ctx context.Context) error {
	elected, over := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: l.lock, LeaseDuration: l.timing.lease, RenewDeadline: l.timing.renew, RetryPeriod: l.timing.retry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(elected) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	hold, release := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		release()
		<-over
	}()
	go func() {
		defer close(over)
		elector.Run(hold)
	}()
	select {
	case <-ctx.Done():
		return nil
	case <-elected:
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-over:
			return errLeaseLost
		case <-ctx.Done():
			return nil
		}
	})
	for _, f := range l.members {
		g.Go(func() error { return f.Start(ctx) })
	}
	return g.Wait()
}
