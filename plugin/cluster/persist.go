package cluster

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	persistence    = time.Minute // how long an API server may be away while an experiment runs
	persistBetween = time.Second
)

// persist does what may be done twice, again where an API server is away or too busy for a moment: an experiment of half an hour is
// not to end with that.
func persist(ctx context.Context, do func() error) error {
	for end := time.Now().Add(persistence); ; {
		err := do()
		if !transient(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(persistBetween):
		}
	}
}

// transient says whether an error is one of an API server that is away or too busy, and not an answer.
func transient(err error) bool {
	return err != nil && (apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) ||
		utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err) || utilnet.IsProbableEOF(err) ||
		utilnet.IsTimeout(err))
}
