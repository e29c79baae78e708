package cluster

import (
	"context"
	"errors"
	"net"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	retryTimeout = time.Minute // how long an API server may be unavailable while an experiment runs
	// RetryInterval is the time between two attempts.
	RetryInterval = time.Second
)

// Retry retries an idempotent call while the API server is unavailable or too busy, for up to retryTimeout: a short
// outage must not end an experiment of half an hour.
func Retry(ctx context.Context, do func() error) error {
	for end := time.Now().Add(retryTimeout); ; {
		err := do()
		if !IsTransient(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(RetryInterval):
		}
	}
}

// IsTransient reports whether an error means that the API server is unavailable or too busy, and is not its answer.
func IsTransient(err error) bool {
	var dial *net.OpError
	var name *net.DNSError
	return err != nil && (errors.As(err, &dial) || errors.As(err, &name) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) ||
		utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err) ||
		utilnet.IsProbableEOF(err) || utilnet.IsTimeout(err))
}
