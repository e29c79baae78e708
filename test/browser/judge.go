package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Shots names a folder, in the environment, in which pictures of pages are left for people to look at.
const Shots = "BROWSER_SHOTS"

// Shot leaves a picture of the whole page, where that is wanted.
func (p *Tab) Shot(name string) {
	p.t.Helper()
	dir := os.Getenv(Shots)
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), Run(p, chromedp.FullScreenshot(100)), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Emulate has the page shown in a window of a width, in pixels, by people who prefer "light" or "dark".
func (p *Tab) Emulate(width int64, scheme string) {
	p.t.Helper()
	Run(p, chromedp.EmulateViewport(width, 740))
	Call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// Sideways returns by how many pixels the page is wider than its window.
func (p *Tab) Sideways() int {
	p.t.Helper()
	return Eval[int](p, `Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth`)
}

// Inaccessible returns what axe-core finds of serious or critical impact.
func (p *Tab) Inaccessible() []string {
	p.t.Helper()
	axe, err := os.ReadFile(filepath.Join(p.packages, "axe-core", "axe.min.js"))
	if err != nil {
		p.t.Fatal(err)
	}
	Run(p, chromedp.Evaluate[chromedp.Void](string(axe)))
	var report struct {
		Passes     []struct{ ID string }
		Violations []struct {
			ID, Impact, Help string
			Nodes            []struct{ HTML string }
		}
	}
	if err := json.Unmarshal([]byte(Eval[string](p, `axe.run().then(JSON.stringify)`)), &report); err != nil {
		p.t.Fatal(err)
	}
	if len(report.Passes) == 0 {
		p.t.Fatal("axe-core found nothing to judge")
	}
	var found []string
	for _, v := range report.Violations {
		if slices.Contains([]string{"serious", "critical"}, v.Impact) {
			var nodes []string
			for _, n := range v.Nodes {
				nodes = append(nodes, n.HTML)
			}
			found = append(found, fmt.Sprintf("%s (%s): %s: %s", v.ID, v.Impact, v.Help, strings.Join(nodes, " ")))
		}
	}
	return found
}
