// Sandbox-probe runs the built-in checks, inside Jobs: it measures load and tests contracts, and prints its findings
// for the plugin to judge. It reaches the baseline and every variant by one URL, with and without routing keys.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
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
	cmd := &cobra.Command{
		Use:   "sandbox-probe",
		Short: "Compare variants of a service with its baseline",
		Long: `Compare variants of a service with its baseline.

What is found is printed as one line, for the plugin to read. The exit status says whether anything was
found, and nothing of what.`,
		Version:           version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.AddCommand(newLoad(), newContract())
	return cmd
}

// logger returns the program's logger. Its lines never begin as a result does.
func logger(cmd *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
}

// arms are the flags that select what is compared.
type arms struct {
	variants []string
	carriers route.Carriers
}

func (a *arms) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&a.variants, "variant", nil, "NAME=KEY of a variant's sandbox and its routing key. May be given many times.")
	f.StringVar(&a.carriers.Header, "key-header", sandbox.DefaultHeader, "Request header that carries a routing key.")
	f.StringVar(&a.carriers.Member, "key-member", sandbox.DefaultMember, "Member of baggage and tracestate that carries a routing key.")
}

// variant is a variant, as a flag names it.
type variant struct{ name, key string }

func (a *arms) parse() ([]variant, error) {
	var all []variant
	names, keys := map[string]bool{}, map[string]bool{}
	for _, s := range a.variants {
		name, key, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("--variant=%s: must be NAME=KEY", s)
		}
		if err := sandbox.ValidateName(name); err != nil {
			return nil, fmt.Errorf("--variant=%s: the name %w", s, err)
		}
		if err := sandbox.ValidateKey(key); err != nil {
			return nil, fmt.Errorf("--variant=%s: the key %w", s, err)
		}
		if names[name] || keys[key] {
			return nil, fmt.Errorf("--variant=%s: its name or its key is another's as well", s)
		}
		names[name], keys[key] = true, true
		all = append(all, variant{name, key})
	}
	if len(all) == 0 {
		return nil, errors.New("--variant: must be given at least once")
	}
	return all, nil
}
