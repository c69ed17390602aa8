package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The promises, and where each is proved: end to end in this package, with the real
// trouped, its runner, processes and sockets; in virtual time in actors; at the level
// of one package elsewhere.
//
//	1  105 connections at once, 100 sessions
//	       TestPromise01CeilingIsExactOverSockets
//	       actors.TestCeilingIsExact (200 rounds, panics), actors.TestCeilingNeverExceededWhileSessionsTurnOver
//	2  a slot comes back with the end of the processes
//	       TestPromise02SlotFollowsTheProcesses, TestPromise02IdleSessionsGiveTheirSlotBack
//	       actors.TestSlotIsHeldUntilTheTreeIsDead, actors.TestIdleDetachedSessionIsEvicted, actors.TestDetachedSessionExpires
//	3  stream timeout
//	       TestPromise03StreamTimeoutKeepsPartialOutput
//	       actors.TestSilentCommandEndsAtStreamTimeout (300 s), actors.TestOutputHoldsTheStreamTimeoutOff, actors.TestPausedCommandDoesNotTimeOut
//	4  lines and prompts
//	       TestPromise04LinesArriveExactly, TestPromise04PromptsDoNotWait
//	       actors/transcript.TestLineOfExactlyTheLimitIsWhole, actors/transcript.TestFramerAgreesWithReferenceAtEverySplit,
//	       actors/transcript.TestRealLimitSplitAnywhere
//	5  output past the limit, disk full, data directory gone
//	       TestPromise05OutputPastTheLimitIsCounted, TestPromise05FullDisk, TestPromise05DataDirRemoved
//	       actors/transcript.TestNothingFollowsADroppedLine, actors/transcript.TestDiskFull, actors/transcript.TestDirectoryGone
//	6  control and bad frames
//	       TestPromise06ControlInEveryState, TestPromise06ControlBeforeTheStart, TestPromise06FramesThatNoClientShouldSend,
//	       TestPromise06BigFrameEndsTheConnectionOnly, TestPromise06HalfOpenSocket
//	       actors.TestControlInEveryState, gateway.TestBadFramesAreAnsweredAndTheConnectionGoesOn, actors/wire.TestDecodeRefuses
//	7  every end kills the whole tree
//	       TestPromise07CancelKillsEveryTree, TestPromise07TwoHundredCancels, TestPromise07CommandKillsItsInit,
//	       TestPromise07EndsKillEveryTree, TestPromise07RunnerKilled, TestKilledServerLeavesNothing
//	       actors/proc.TestKillReaches, actors/proc.TestKillOutrunsForkLoops, actors/proc.TestTroupedAndRunnerKilled,
//	       actors.TestPanicAnywhereEndsOneSessionOnly (session panic)
//	8  completed is last; survivors; on_exit keep
//	       TestPromise08CompletedFollowsTheLastByte, TestPromise08BackgroundChildren, TestPromise08KeptSurvivors
//	       actors.TestCommandRunsFromRequestToCompletion, actors/proc.TestSurvivorsAreNamed, actors/proc.TestSurvivorsOfACgroupAreCounted
//	9  ends that race
//	       actors.TestEndsRaceInEveryOrder, and docs/model/process.pml
//	10 resume
//	       TestPromise10OutputSurvivesFiftyCuts, TestPromise10ResumeIsRefusedOrServed, TestPromise10ReaderThatNeverReads
//	       clients/go.TestRejoinedOutputIsIdentical, actors.TestResumeReplaysFromTheOffset, gateway.TestReaderThatNeverReads
//	11 the same execution_id runs once
//	       TestPromise11SameExecutionIDRunsOnce
//	       actors.TestRepeatedExecutionIDRunsOnce, clients/go.TestExecuteIsSentAgain
//	12 eight executions at a time
//	       TestPromise12EightExecutionsAtATime
//	       actors.TestNinthExecutionIsRefused, gateway.TestExecutionsTakeTurns
//	13 cc-executor's clients
//	       TestPromise13CCExecutorClientWorksUnchanged
//	14 security
//	       TestPromise14CommandsOfTheSameUserAreKeptOut, TestPromise14NobodyPosesAsTheRunner, TestPromise14Tokens,
//	       TestPromise14GreedyExecutionEndsAlone
//	       actors/proc.TestSameUserAttack, actors/proc.TestMemoryLimit, gateway.TestAuthentication, TestMemoryIsShielded
//	15 panics
//	       actors.TestPanicAnywhereEndsOneSessionOnly, gateway.TestPanicClosesOneConnectionWith1011
//	16 shutdown
//	       TestDrainLetsCommandsFinish, TestDrainTimeoutCancelsTheRest, TestSecondSignalEndsAtOnce
//	       actors.TestDrainLetsCommandsFinish, actors.TestCloseKillsAtOnce
//	17 a client never gets more than the server's limits, and with --allow-command nothing else runs
//	       TestPromise17LimitsAreTheServers, TestPromise17OnlyAllowedCommandsRun
//	       actors.TestPlanHoldsTimesToTheLimits, actors.TestPlanHoldsOutputToTheLimit, actors.TestPlanReplacesVariables,
//	       actors.TestAllowListHoldsPrograms, actors.TestAllowListHoldsTheEnvironment, actors.TestAllowListRefusesShellStrings
//	18 no subject keeps the others out
//	       TestPromise18GreedySubjectLeavesTheLastTenth, TestPromise18SubjectAtItsLimits,
//	       TestPromise18ConnectionsOfOneSubject, TestPromise18OutputOfOneSubject
//	       actors.TestGreedySubjectLeavesTheLastTenth, actors.TestEvictionTakesFromWhoHoldsMost, actors.TestSubjectAtItsExecutionLimit
//	19 a session lasts until its attached clients have acknowledged the end
//	       TestPromise19SlowReaderInADrain, TestPromise19SlowReaderIsNotIdle
//	       actors.TestSessionLastsUntilItsReaderHasTheEnd, actors.TestResumingTakesTheAcknowledgementBack, and docs/model/session.pml
//	20 the client that ends first ends no session for the others
//	       TestPromise20FollowerThatEndsFirst
//	       actors.TestFollowerThatEndsFirst, actors.TestGoodbyeOfOneClientLeavesTheOthersCommand, actors.TestEndOfKeptProcessesIsWaitedFor
//	21 a command waits for its reader, and ends as any other
//	       TestPromise21WaitingCommandIsCancelled, TestPromise21WithoutAReaderTheCommandEnds, TestPeersReaderLosesNothing
//	       actors.TestCommandWaitsForItsReader, actors.TestEveryEndReachesAWaitingCommand, actors.TestWithoutAReaderTheCommandEnds,
//	       actors.TestWaitingForTheReaderIsNotSilence
//	22 binary frames, windows and acknowledgements lose no byte, on any pod
//	       TestPromise22BinaryFramesCarryEveryByte
//	       gateway.TestBinaryFramesCarryEveryByte, gateway.TestAWindowBoundsWhatIsSentBeyondTheLastAck

// TestPromiseTableNamesRealTests: each test of the table is there, and each
// test of a promise is in it.
func TestPromiseTableNamesRealTests(t *testing.T) {
	table, err := os.ReadFile("promise_table_test.go")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ = bytes.Cut(table, []byte("\n// TestPromiseTable"))
	declared := map[string]bool{}
	for _, dir := range []string{
		"", "actors", "actors/proc", "actors/transcript", "gateway", "clients/go",
		"actors/wire",
	} {
		pattern := "*_test.go"
		if dir != "" {
			pattern = filepath.Join("../..", dir, pattern)
		}
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
				name := string(m[1])
				if dir != "" {
					name = dir + "." + name
				}
				declared[name] = true
			}
		}
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:[a-z]+(?:/[a-z]+)?\.)?Test\w+`).FindAll(table, -1) {
		named[string(m)] = true
		if !declared[string(m)] {
			t.Errorf("the table names %s, which is not there", m)
		}
	}
	for name := range declared {
		if regexp.MustCompile(`^TestPromise\d`).MatchString(name) && !named[name] {
			t.Errorf("the table does not name %s", name)
		}
	}
}
