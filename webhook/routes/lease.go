package routes

import (
	"crypto/rand"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Identity returns a new identity under which a process stands for the lease: the address of its route stream, by which the
// other replicas send routers there, and something random. The random part makes every process that takes the lease a
// transition, a restarted container that finds its own old lease included, so that no two processes ever share a term.
func Identity(addr string) string { return addr + "_" + strings.ToLower(rand.Text())[:10] }

// address returns the route stream's address in an Identity, "" for an identity of another form.
func address(identity string) string {
	addr, _, ok := strings.Cut(identity, "_")
	if !ok {
		return ""
	}
	return addr
}

// term returns the Version.Term of the lease's holder. Transitions alone would begin anew when somebody deletes the Lease (a
// new installation, say), and the routers of baselines that outlived it would refuse every new table: so the second of
// the Lease's creation, by the API server's clock, goes before them. Good for 2^20 transitions of a Lease, and below 2^53.
func term(l *coordinationv1.Lease) int64 {
	transitions := int64(0)
	if l.Spec.LeaseTransitions != nil {
		transitions = int64(*l.Spec.LeaseTransitions)
	}
	return l.CreationTimestamp.Unix()<<20 + transitions
}

// holder returns the identity that holds the lease at the time now, "" when there is none.
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
