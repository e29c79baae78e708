package server

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/gateway"
)

// GatewayOptions are the settings of a replica of the gateway.
type GatewayOptions struct {
	gateway.Options
	LogLevel string
}

// AddFlags binds the options to flags and sets their defaults.
func (o *GatewayOptions) AddFlags(f *pflag.FlagSet) {
	o.Options.AddFlags(f)
	f.StringVar(&o.LogLevel, "log-level", "info", "One of debug, info, warn, error.")
}

// Validate returns all errors of the options.
func (o *GatewayOptions) Validate() error {
	if _, err := o.Level(); err != nil {
		return err
	}
	return o.Options.Validate()
}

// Level returns the log level.
func (o *GatewayOptions) Level() (slog.Level, error) { return (&Options{LogLevel: o.LogLevel}).Level() }

// RunGateway serves previews until ctx ends and the requests in flight are answered. It never writes to the cluster.
func RunGateway(ctx context.Context, config *rest.Config, o GatewayOptions, logger logr.Logger) error {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.UserAgent = "sandbox-gateway/" + o.Version
	mapper, err := (&Options{}).resources(nil, nil)
	if err != nil {
		return err
	}
	c, err := cache.New(config, cache.Options{Mapper: mapper, ByObject: gateway.CacheOptions(), ReaderFailOnMissingInformer: true})
	if err != nil {
		return fmt.Errorf("set up the cache: %w", err)
	}
	if err := gateway.Index(ctx, c); err != nil {
		return err
	}
	g, err := gateway.New(o.Options, c, slog.New(logr.ToSlogHandler(logger)))
	if err != nil {
		return err
	}
	return g.Run(ctx, c)
}
