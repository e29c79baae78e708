package routes

import (
	"k8s.io/apimachinery/pkg/types"
)

// takeDialed stores the results of a router's attempts to connect to pods, and reports whether a state changed. A pod
// is reachable as soon as one router could connect to it. It is unreachable again only when a router fails that could
// connect before: for another router, a network policy may be the cause. It ignores pods that are not in the table. The
// caller holds Hub.mu.
func (b *baseline) takeDialed(r *router, all map[string]string) (news bool) {
	for id, why := range all {
		uid := types.UID(id)
		if _, serves := b.serving[uid]; !serves {
			continue
		}
		why = line(why)
		was, known := b.dialed[uid]
		_, reached := r.reached[uid]
		if why == "" {
			if r.reached == nil {
				r.reached = map[types.UID]struct{}{}
			}
			r.reached[uid] = struct{}{}
		} else {
			delete(r.reached, uid)
			if known && was == "" && !reached {
				continue
			}
		}
		if !known || was != why {
			b.dialed[uid] = why
			news = true
		}
	}
	return news
}
