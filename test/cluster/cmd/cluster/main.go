// Command cluster brings up a real single-node Kubernetes on this machine, for
// demo, tests and benchmarks, and makes images for it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/image"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	var exit *exec.ExitError
	if errors.As(err, &exit) { // of a command run in the node, which has said why
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var root, state string
	command := &cobra.Command{
		Use:   "cluster",
		Short: "A real single-node Kubernetes on this machine",
		Long: `A real single-node Kubernetes on this machine: etcd, API server, controllers, kubelet,
kube-proxy, containerd, runc and CoreDNS, all built from their Go modules. Needs Linux, root and Go.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	command.PersistentFlags().StringVar(&root, "root", "", "the clone of the repository (default: the one this program or the working directory is in)")
	command.PersistentFlags().StringVar(&state, "state", "", "the folder for all that the cluster keeps (default: .cluster in the clone)")
	this := func(config cluster.Config) (*cluster.Cluster, error) {
		if root == "" {
			found, err := findRoot()
			if err != nil {
				return nil, fmt.Errorf("%w: name one by --root", err)
			}
			root = found
		}
		config.Root, config.State, config.Progress = root, state, os.Stderr
		return cluster.New(config)
	}
	command.AddCommand(newUp(this), newDown(this), newLoad(this), newKubeconfig(this), newLogs(this), newStatus(this), newExec(this), newImage())
	return command
}

// findRoot prefers the clone that this program was built into, so that
// CLONE/bin/cluster means the cluster of CLONE wherever it is called.
func findRoot() (string, error) {
	if self, err := os.Executable(); err == nil {
		if root, err := cluster.FindRoot(filepath.Dir(self)); err == nil {
			return root, nil
		}
	}
	return cluster.FindRoot(".")
}

type find func(cluster.Config) (*cluster.Cluster, error)

func newUp(this find) *cobra.Command {
	var takeOver bool
	command := &cobra.Command{
		Use:   "up",
		Short: "Bring the cluster up, or mend it",
		Long: `Bring the cluster up, or mend it. What runs and is as it should be stays as it is. The first
run on a machine builds everything, which takes about a quarter of an hour on two cores; what is
built is kept in the user's cache folder, for all clones.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := this(cluster.Config{TakeOver: takeOver})
			if err != nil {
				return err
			}
			return c.Up(cmd.Context())
		},
	}
	command.Flags().BoolVar(&takeOver, "take-over", false, "stop the cluster of another clone that has this machine; its own cluster up starts it again, with what it held")
	return command
}

func newDown(this find) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the cluster and remove all that it has left on the machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := this(cluster.Config{})
			if err != nil {
				return err
			}
			return c.Down(cmd.Context())
		},
	}
}

func newLoad(this find) *cobra.Command {
	return &cobra.Command{
		Use:   "load IMAGE.tar...",
		Short: "Load images from archives into the cluster",
		Example: `  # Load an image that this program, docker save or ko has written
  cluster load bin/images/app.tar`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := this(cluster.Config{})
			if err != nil {
				return err
			}
			return c.Load(cmd.Context(), args...)
		},
	}
}

func newKubeconfig(this find) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the path of the cluster's kubeconfig",
		Example: `  # Use the cluster in this shell
  export KUBECONFIG=$(cluster kubeconfig)`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := this(cluster.Config{})
			if err != nil {
				return err
			}
			if _, err := os.Stat(c.Kubeconfig()); err != nil {
				return cluster.ErrNoCluster
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
			return err
		},
	}
}

func newLogs(this find) *cobra.Command {
	var tail int
	command := &cobra.Command{
		Use:   "logs [PART]",
		Short: "Print the log of a part of the cluster, or of which parts there are logs",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := this(cluster.Config{})
			if err != nil {
				return err
			}
			if len(args) == 0 {
				for _, part := range c.Parts() {
					fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", part, c.LogPath(part))
				}
				return nil
			}
			path := c.LogPath(args[0])
			if tail > 0 {
				text, err := program.Tail(path, tail)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
				return err
			}
			file, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("%w (parts: %s)", err, strings.Join(c.Parts(), ", "))
			}
			defer func() { _ = file.Close() }()
			_, err = io.Copy(cmd.OutOrStdout(), file)
			return err
		},
	}
	command.Flags().IntVar(&tail, "tail", 0, "print only this many of the last lines")
	return command
}

func newStatus(this find) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print which parts of the cluster run",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := this(cluster.Config{})
			if err != nil {
				return err
			}
			status, err := c.Status()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tPID\tRUNNING")
			var ended []string
			for _, part := range status {
				fmt.Fprintf(w, "%s\t%d\t%t\n", part.Name, part.PID, part.Running)
				if !part.Running {
					ended = append(ended, part.Name)
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if len(ended) > 0 {
				return fmt.Errorf("%s ended: cluster up starts what has ended, cluster logs PART tells why it did", strings.Join(ended, ", "))
			}
			return nil
		},
	}
}

func newExec(this find) *cobra.Command {
	return &cobra.Command{
		Use:   "exec -- COMMAND [ARG...]",
		Short: "Run a command in the node, among the cluster's processes and interfaces",
		Example: `  # List the images that pods can use
  cluster exec -- ctr -n k8s.io images list -q

  # Show kube-proxy's rules
  cluster exec -- nft list ruleset`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := this(cluster.Config{})
			if err != nil {
				return err
			}
			return c.Exec(cmd.Context(), os.Stdin, os.Stdout, os.Stderr, args[0], args[1:]...)
		},
	}
}

func newImage() *cobra.Command {
	var (
		name, output string
		spec         image.Spec
		files        []string
	)
	command := &cobra.Command{
		Use:   "image --name NAME:TAG --binary PATH -o IMAGE.tar",
		Short: "Make an image of a static Go binary",
		Long: `Make an image of a static Go binary: one layer with the binary, a writable /tmp and the user
65532. Equal input gives an equal image, to the digest.`,
		Example: `  # Make an image of a program, built with CGO_ENABLED=0 GOOS=linux
  cluster image --name localhost/app:1 --binary bin/app -o bin/app.tar`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec.Files = map[string]string{}
			for _, file := range files {
				on, in, ok := strings.Cut(file, ":")
				if !ok || on == "" || in == "" {
					return fmt.Errorf("--file %q: wanted PATH:PATH-IN-IMAGE", file)
				}
				spec.Files[in] = on
			}
			img, err := image.Build(spec)
			if err != nil {
				return err
			}
			digest, err := img.Digest()
			if err != nil {
				return err
			}
			if err := image.WriteFile(output, name, img); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s@%s\n", name, digest)
			return err
		},
	}
	flags := command.Flags()
	flags.StringVar(&name, "name", "", "name of the image, REPOSITORY:TAG")
	flags.StringVar(&spec.Binary, "binary", "", "the executable: Linux, statically linked")
	flags.StringVarP(&output, "output", "o", "", "the archive to write")
	flags.StringVar(&spec.Path, "path", "", "path of the executable in the image (default: its file name, in /)")
	flags.StringArrayVar(&spec.Entrypoint, "entrypoint", nil, "what is run, one flag an argument (default: the executable)")
	flags.StringArrayVar(&spec.Cmd, "cmd", nil, "default arguments, one flag an argument")
	flags.StringArrayVar(&spec.Env, "env", nil, "variable, NAME=VALUE")
	flags.StringArrayVar(&spec.Ports, "port", nil, "port it listens on, such as 8080/tcp")
	flags.StringArrayVar(&files, "file", nil, "further file or folder, PATH:PATH-IN-IMAGE")
	flags.BoolVar(&spec.Root, "root-user", false, "run as root rather than as user 65532")
	for _, required := range []string{"name", "binary", "output"} {
		if err := command.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	return command
}
