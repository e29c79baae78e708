// Command sandbox-webhook adds routers to pods at admission, and sends the routers their routes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/selftest"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/server"
)

// version is set when the program is linked.
var version = "v0.0.0-dev" //nolint:gochecknoglobals // by -ldflags "-X main.version=..."

func main() {
	// The first signal ends the program in order; after it, a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var o server.Options
	cmd := &cobra.Command{
		Use:           "sandbox-webhook",
		Short:         "Admit pods with routers, and tell the routers where requests go",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Complete(version, os.Getenv)
			memory, err := server.LimitMemory(os.Getenv)
			if err != nil {
				return err
			}
			o.Memory = memory
			if err := o.Validate(); err != nil {
				return err
			}
			log, err := logger(cmd.ErrOrStderr(), o.Level)
			if err != nil {
				return err
			}
			api, err := config.GetConfig()
			if err != nil {
				return err
			}
			return server.Run(cmd.Context(), api, o, log)
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.AddCommand(newGateway(), newSelfTest())
	return cmd
}

// logger returns the program's logger, which its libraries use too.
func logger(w io.Writer, level func() (slog.Level, error)) (logr.Logger, error) {
	l, err := level()
	if err != nil {
		return logr.Logger{}, err
	}
	log := logr.FromSlogHandler(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
	ctrllog.SetLogger(log)
	klog.SetLogger(log)
	return log, nil
}

// newGateway is a mode of this program and not a program of its own: both share the watches of the cluster, and one
// image. It runs in separate pods, with separate rights.
func newGateway() *cobra.Command {
	var o server.GatewayOptions
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Let people and tests outside of the cluster into sandboxes, by preview URLs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Version = version
			if _, err := server.LimitMemory(os.Getenv); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return err
			}
			log, err := logger(cmd.ErrOrStderr(), o.Level)
			if err != nil {
				return err
			}
			api, err := config.GetConfig()
			if err != nil {
				return err
			}
			return server.RunGateway(cmd.Context(), api, o, log)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func newSelfTest() *cobra.Command {
	var o selftest.Options
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "selftest",
		Short: "Create a small baseline and a fork of it, send requests to both, and report what does not work",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Image == "" {
				return errors.New("--image is required: the image of this program")
			}
			api, err := config.GetConfig()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return selftest.Run(ctx, api, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Namespace, "namespace", "default", "Namespace to create objects in: one that admission does not exclude.")
	f.StringVar(&o.Image, "image", "", "Image of this program, which is the application as well. Required.")
	f.StringVar(&o.PullPolicy, "image-pull-policy", "IfNotPresent", "Pull policy of the image.")
	f.StringArrayVar(&o.PullSecrets, "image-pull-secret", nil, "Name of a pull secret in the namespace. Repeat it for further ones.")
	f.StringVar(&o.KeyHeader, "key-header", sandbox.DefaultHeader, "Request header that carries a routing key.")
	f.StringVar(&o.KeyMember, "key-member", sandbox.DefaultMember, "Member of baggage that carries a routing key.")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "How long the whole test may take.")
	f.DurationVar(&o.StepTimeout, "step-timeout", 0, "How long each step may take; 0 for what it needs on a slow cluster.")
	cmd.AddCommand(&cobra.Command{
		Use:    "app",
		Short:  "Serve as the test's application: answer with " + selftest.EnvAnswer,
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return selftest.Serve(cmd.Context(), ":8080", os.Getenv(selftest.EnvAnswer))
		},
	})
	return cmd
}
