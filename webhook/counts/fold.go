package counts

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// marks hold, by workload, how much of each router's total is in the sum.
type marks map[string]mark

type mark struct {
	Of      string                 `json:"of"`      // UID of the fork that the requests were routed to
	Routers map[string]route.Count `json:"routers"` // by routerID
}

// RouterID identifies one life of one router in 16 bytes. It is short because every sandbox's ConfigMap has one for
// each router that routed its key.
func RouterID(uid types.UID, start string) string { return short(string(uid)) + short(start) }

func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5]))
}

// fold adds to totals what the reports of one workload's routers on the fork have beyond their marks, and moves the
// marks. Then it drops the marks of routers that are gone, and reports whether anything changed.
func fold(
	totals route.Totals, m marks, workload, fork string, reports map[string]route.Count, gone func(routerID string) bool,
) bool {
	marked, changed := m[workload], false
	if marked.Of != fork || marked.Routers == nil {
		marked = mark{fork, map[string]route.Count{}}
	}
	for id, total := range reports {
		total.Of = "" // stored once for all routers
		had := marked.Routers[id]
		if total == had {
			continue
		}
		more, ok := total.Since(had)
		if !ok {
			continue // a total of an earlier life of the router
		}
		totals[workload] = totals[workload].Add(more)
		marked.Routers[id] = total
		changed = true
	}
	for id := range marked.Routers {
		if gone(id) {
			delete(marked.Routers, id)
			changed = true
		}
	}
	if changed {
		m[workload] = marked
	}
	return changed
}

// goneRouters returns a function that reports whether a router is gone: its pod is, or it restarted in the same pod.
func goneRouters(pods []corev1.Pod, routers map[types.UID]string) func(id string) bool {
	living := make(map[string]string, len(pods))
	for i := range pods {
		living[short(string(pods[i].UID))] = routers[pods[i].UID]
	}
	return func(id string) bool {
		if len(id) < len(short("")) {
			return true
		}
		now, lives := living[id[:len(short(""))]]
		return !lives || now != "" && now != id
	}
}
