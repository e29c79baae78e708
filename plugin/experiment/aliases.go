package experiment

import "github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"

// The names by which users know what moved to package suite, until they import it.
type (
	Suite       = suite.Suite
	Check       = suite.Check
	Kind        = suite.Kind
	Object      = suite.Object
	NamedObject = suite.NamedObject
	Probes      = suite.Probes
	Run         = suite.Run
	Variant     = suite.Variant
	Limits      = suite.Limits
	Runner      = suite.Runner
)

const (
	E2E                = suite.E2E
	Load               = suite.Load
	Contract           = suite.Contract
	KindConfigMap      = suite.KindConfigMap
	KindSecret         = suite.KindSecret
	KindServiceAccount = suite.KindServiceAccount
	KindClaim          = suite.KindClaim
	ProbeImage         = suite.ProbeImage
	ExitNonePassed     = suite.ExitNonePassed
	ExitInconclusive   = suite.ExitInconclusive
	ExitNotRun         = suite.ExitNotRun
)

var (
	ParseSuite  = suite.Parse
	FromCronJob = suite.FromCronJob
	Place       = suite.Place
	Job         = suite.Job
	ProbeJob    = suite.ProbeJob
)
