package routes

import (
	"k8s.io/apimachinery/pkg/types"
)

// takeDialed takes in what came of a router's attempts to connect to pods, and says whether that is news. A pod counts as reached as
// soon as one router could connect to it, and as unreached again when a router that could can't any more: another's failure may be a
// policy's that concerns that one alone. Pods that are not in the table are of no interest. The caller holds Hub.mu.
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
