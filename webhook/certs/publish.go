package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A publisher keeps the caBundle of a MutatingWebhookConfiguration up to date.
type publisher struct {
	client  client.Client
	name    string               // of the configuration
	service types.NamespacedName // called by our webhooks
	ledger  ledger
}

// publish adds own to the bundle of each of our webhooks. It returns what all of them contain, by which the API server
// verifies us. On an error the bundle is unchanged.
func (p *publisher) publish(ctx context.Context, own []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	config := &admissionv1.MutatingWebhookConfiguration{}
	if err := p.client.Get(ctx, types.NamespacedName{Name: p.name}, config); err != nil {
		return nil, fmt.Errorf("read mutatingwebhookconfiguration %s: %w", p.name, err)
	}
	existing, found := p.common(config)
	if !found {
		return nil, fmt.Errorf("mutatingwebhookconfiguration %s has no webhook for service %s", p.name, p.service)
	}
	bundle := encodeCertificates(p.ledger.merge(existing, own, now))
	var patch []jsonpatch.Operation
	for i, w := range config.Webhooks {
		if !p.ours(w) || bytes.Equal(w.ClientConfig.CABundle, bundle) {
			continue
		}
		path := "/webhooks/" + strconv.Itoa(i)
		// The position is only valid while that name is there. If somebody changed a bundle meanwhile, an event follows, and
		// the bundle is merged then.
		patch = append(patch, jsonpatch.NewOperation("test", path+"/name", w.Name),
			jsonpatch.NewOperation("add", path+"/clientConfig/caBundle", bundle))
	}
	if len(patch) > 0 {
		b, err := json.Marshal(patch)
		if err != nil {
			return nil, err
		}
		if err := p.client.Patch(ctx, config, client.RawPatch(types.JSONPatchType, b)); err != nil {
			return nil, fmt.Errorf("patch caBundle of mutatingwebhookconfiguration %s: %w", p.name, err)
		}
	}
	published, _ := p.common(config)
	p.ledger.note(published, now)
	return published, nil
}

func (p *publisher) ours(w admissionv1.MutatingWebhook) bool {
	s := w.ClientConfig.Service
	return s != nil && s.Namespace == p.service.Namespace && s.Name == p.service.Name
}

// common returns the certificates that are in the bundles of all our webhooks, and whether there is any such webhook.
func (p *publisher) common(config *admissionv1.MutatingWebhookConfiguration) (certs []*x509.Certificate, found bool) {
	for _, w := range config.Webhooks {
		if !p.ours(w) {
			continue
		}
		these := decodeCertificates(w.ClientConfig.CABundle)
		if !found {
			certs, found = these, true
			continue
		}
		known := make(map[fingerprint]bool, len(these))
		for _, c := range these {
			known[identify(c)] = true
		}
		kept := certs[:0]
		for _, c := range certs {
			if known[identify(c)] {
				kept = append(kept, c)
			}
		}
		certs = kept
	}
	return certs, found
}
