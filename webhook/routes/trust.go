package routes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// trust is the CA bundle that routers are to trust, encoded for sending.
type trust struct {
	sum   string // SHA-256, hexadecimal; empty while there is none
	frame []byte
}

// SetTrust sets the CA bundle (PEM) that routers are to trust from their next connection on, and sends it to those that
// have another.
func (h *Hub) SetTrust(bundle []byte) error {
	sum := sha256.Sum256(bundle)
	frame, err := encode(route.ToRouter{Trust: &route.Trust{CA: string(bundle)}})
	if err != nil {
		return fmt.Errorf("CA bundle: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trust = trust{sum: hex.EncodeToString(sum[:]), frame: frame}
	for _, b := range h.baselines {
		for _, r := range b.routers {
			if r.stream != nil && r.stream.trusts != h.trust.sum {
				r.stream.poke()
			}
		}
	}
	return nil
}
