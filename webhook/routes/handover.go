package routes

import (
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// maxEnded bounds how many ended routers of a baseline are remembered.
const maxEnded = 64

// settle tells routers that wait to end that they may, once all their counts are written. The caller holds Hub.mu.
func (h *Hub) settle(b *baseline) {
	for _, r := range b.routers {
		if r.final && r.stream != nil && !r.stream.taken && len(b.unwritten(r)) == 0 {
			r.stream.taken = true
			r.stream.poke()
		}
	}
}

// unwritten returns the ConfigMaps that lack some of what a router reported. The caller holds Hub.mu.
func (b *baseline) unwritten(r *router) (names []string) {
	rep := b.reports[r.id]
	if rep == nil {
		return nil
	}
	for key, t := range rep.Forks {
		if f, ok := b.current.table.Routes[key]; ok && !t.Written {
			names = append(names, sandbox.ConfigMapName(f.Sandbox))
		}
	}
	for name, keys := range rep.Observed {
		for _, t := range keys {
			if !t.Written {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// handedOver returns the pods whose routers ended, or wait to end, after they reported all their counts.
func (h *Hub) handedOver(names ...Baseline) (pods []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		b := h.baselines[name]
		if b == nil {
			continue
		}
		pods = append(pods, b.ended...)
		for _, r := range b.routers {
			if r.final {
				pods = append(pods, r.pod)
			}
		}
	}
	slices.Sort(pods)
	return pods
}
