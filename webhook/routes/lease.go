package routes

import (
	"crypto/rand"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Identity returns a new identity for the lease: the address of the process's route stream, to which other replicas
// redirect routers, and a random part. With the random part every acquisition is a transition, even by a restarted
// container that finds its own old lease. So no two processes share a term.
func Identity(addr string) string { return addr + "_" + strings.ToLower(rand.Text())[:10] }

// address returns the route stream's address in an Identity; empty for an identity of another form.
func address(identity string) string {
	addr, _, ok := strings.Cut(identity, "_")
	if !ok {
		return ""
	}
	return addr
}

// term returns the Version.Term of the lease's holder. Transitions alone would start again when somebody deletes the
// Lease, for example with a new installation. Routers of existing baselines would then refuse every new table. So the
// second of the Lease's creation, by the API server's clock, comes first. This allows 2^20 transitions of a Lease, and
// stays below 2^53.
func term(l *coordinationv1.Lease) int64 {
	transitions := int64(0)
	if l.Spec.LeaseTransitions != nil {
		transitions = int64(*l.Spec.LeaseTransitions)
	}
	return l.CreationTimestamp.Unix()<<20 + transitions
}

// holder returns the identity that holds the lease at the time now; empty if there is none.
func holder(l *coordinationv1.Lease, now time.Time) string {
	s := &l.Spec
	if s.HolderIdentity == nil || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return ""
	}
	if now.After(s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds) * time.Second)) {
		return ""
	}
	return *s.HolderIdentity
}
