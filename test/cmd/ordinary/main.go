// Command ordinary performs random sequences of ordinary work on the cluster of this clone for as long as it is told, and says
// which promises of the product were broken in them: see package ordinary.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary/live"
)

func main() {
	root := flag.String("root", ".", "root of the repository, whose cluster is used")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()%1e6), "seed of the sequences") //nolint:gosec // not negative
	duration := flag.Duration("duration", time.Hour, "how long sequences are performed; what was found is shrunk after that")
	lanes := flag.Int("lanes", 2, "sequences at a time, each in namespaces of its own")
	length := flag.Int("length", 20, "operations in a sequence")
	shrink := flag.Int("shrink", 12, "how many shorter sequences are tried for one that broke a promise")
	only := flag.String("sequence", "", "file of a sequence to perform, and nothing else")
	report := flag.String("report", "", "document whose figures are replaced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	violations, err := run(ctx, *root, *only, *report, live.Options{
		Seed: *seed, Duration: *duration, Lanes: *lanes, Length: *length, Shrink: *shrink,
		Say: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
		},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
	}
	if err != nil || violations > 0 {
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, root, only, report string, o live.Options) (int, error) {
	c, err := prepare(ctx, root)
	if err != nil {
		return 0, err
	}
	if err := c.Clean(ctx); err != nil {
		return 0, err
	}
	kept := filepath.Join(root, "test", "ordinary", "testdata", "sequences")
	if only != "" {
		q, err := readSequence(only)
		if err != nil {
			return 0, err
		}
		record, err := c.Play(ctx, q, o.Say)
		violations := ordinary.Judge(record)
		for _, v := range violations {
			fmt.Println(v) //nolint:forbidigo // the program's output
		}
		return len(violations), err
	}
	if o.First, err = readSequences(kept); err != nil {
		return 0, err
	}
	summary, err := c.Run(ctx, o)
	fmt.Println(summary.Markdown()) //nolint:forbidigo // the program's output
	fmt.Println(summary.Line())     //nolint:forbidigo // the program's output
	for _, f := range summary.Found {
		if f.Again {
			text := fmt.Sprintf("# Broken: %s\n%s", f.Violations[0].Rule, f.Sequence.Encode())
			if err := os.WriteFile(filepath.Join(kept, f.Name+".txt"), []byte(text), 0o600); err != nil {
				return summary.Violations(), err
			}
		}
	}
	if report != "" && err == nil {
		err = replaceFigures(report, summary)
	}
	return summary.Violations(), err
}

// prepare builds what is needed, and returns the cluster.
func prepare(ctx context.Context, root string) (*live.Cluster, error) {
	c, err := cluster.New(cluster.Config{Root: root, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	progress := progress.New(os.Stderr)
	builder, err := apps.Builder(root, progress)
	if err != nil {
		return nil, err
	}
	archives, err := apps.Archives(ctx, builder, live.Images())
	if err != nil {
		return nil, err
	}
	if err := progress.Step("loading images of the programs", func() error { return c.Load(ctx, archives...) }); err != nil {
		return nil, err
	}
	programs := filepath.Join(root, "bin")
	tools, err := appliers.New(ctx, root, programs, c.Kubeconfig(), progress)
	if err != nil {
		return nil, err
	}
	return live.New(c.Kubeconfig(), programs, filepath.Join(root, ".cluster", "ordinary"), tools)
}

func readSequences(folder string) ([]ordinary.Sequence, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil {
		return nil, err
	}
	var all []ordinary.Sequence
	for _, f := range files {
		q, err := readSequence(f)
		if err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

func readSequence(path string) (ordinary.Sequence, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	q, err := ordinary.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return q, nil
}

// replaceFigures replaces the figures of the run's seed in the document, or adds them.
func replaceFigures(path string, s *ordinary.Summary) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := fmt.Sprintf("<!-- seed %d -->\n", s.Seed), fmt.Sprintf("<!-- end of seed %d -->\n", s.Seed)
	figures := begin + s.Markdown() + end
	before, rest, found := strings.Cut(string(old), begin)
	if _, after, ok := strings.Cut(rest, end); found && ok {
		return os.WriteFile(path, []byte(before+figures+after), 0o600)
	}
	return os.WriteFile(path, append(old, "\n"+figures...), 0o600)
}
