package operate

import (
	"context"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// A ShareWriter lets whoever has a token enter a sandbox, or revokes that.
type ShareWriter interface {
	// Share lets them in through a Service; if service is empty, through the one by which requests enter the namespace.
	Share(ctx context.Context, name, service, token string, expires time.Time) (*apply.Shared, error)
	// Revoke revokes the shares of a sandbox, or only those for service, and returns their number.
	Revoke(ctx context.Context, name, service string) (int, error)
}

// A Share shares previews of sandboxes.
type Share struct {
	Read  InventoryReader
	Write ShareWriter
}

// ShareOptions are what is to be shared.
type ShareOptions struct {
	Namespace string
	Name      string        // of the sandbox
	Service   string        // svc/SERVICE[.NAMESPACE]; may be empty
	Lifetime  time.Duration // from now on
}

// A Shared is a preview that was shared.
type Shared struct {
	apply.Shared
	Token     string
	Unreached []Unreached
}

// Run shares the preview.
func (s *Share) Run(ctx context.Context, o ShareOptions) (*Shared, error) {
	service, err := o.service()
	if err != nil {
		return nil, err
	}
	token := share.NewToken()
	shared, err := s.Write.Share(ctx, o.Name, service, token, time.Now().Add(o.Lifetime).Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	return &Shared{Shared: *shared, Token: token, Unreached: FindUnreached(ctx, s.Read, o.Namespace, o.Name)}, nil
}

// Revoke revokes the sandbox's links and tokens, or those for the Service, and returns their number.
func (s *Share) Revoke(ctx context.Context, o ShareOptions) (int, error) {
	service, err := o.service()
	if err != nil {
		return 0, err
	}
	return s.Write.Revoke(ctx, o.Name, service)
}

func (o *ShareOptions) service() (string, error) {
	if o.Service == "" {
		return "", nil
	}
	return sandboxes.ParseShared(o.Service, o.Namespace)
}
