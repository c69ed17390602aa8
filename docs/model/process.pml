/*
 * The life of one execution: actors/process.go against everything that may
 * happen to it. Checked by `make verify` for every interleaving:
 *
 *   - no deadlock, and no state in which an end can no longer be reached;
 *   - the tree is dead and reaped at every end;
 *   - process.completed is put into the transcript exactly once, not before the
 *     output was read, and (unless survivors are kept) not before the tree is dead;
 *   - the session is told exactly once that the execution has ended.
 *
 * .ci/verify also takes out, one at a time, the lines that are marked required, and
 * demands that spin then finds a run that goes wrong.
 *
 * The environment: a client that cancels, kills, pauses, resumes and goes away;
 * timers for silence, grace, survivors and overdue pipes; a runner that may be lost
 * at any time; a command that may exit, ignore SIGTERM, kill its own init, and
 * leave survivors that hold its pipes, or do not; a foreign process that may hold
 * a pipe after the tree is dead.
 */

mtype = { Starting, Running, Paused, Canceling, Exiting, Kept, Exited };

/* mailbox of the process actor */
mtype = { EvStarted, EvStartFailed, EvPaused, EvExited, EvExitedWithSurvivors, EvDead,
          EvEof, EvCaughtUp, ReqCancel, ReqKill, ReqPause, ReqResume, ReqEnd,
          TmGrace, TmSurvivors, TmOverdue };

chan mail = [8] of { mtype };

/* what the actor asked of the tree */
bool kill, sweep, frozen;
/* what the tree is */
bool leaderAlive, othersAlive, treeDead, foreignHolds, stubborn, clinging, fragile; /* dead is dead and reaped: the runner says nothing before */
/* readers: both pipes as one */
bool eof, catchUp, closePipe;
bool blocked, absent, unblock; /* output waits for its reader; the reader never comes; that counts no more */
/* armed timers */
bool graceArmed, survivorsArmed, overdueArmed;
/* the outcome */
byte completed, gone;
bool keep;
mtype state = Starting;
bool actorDone;

inline tell(m) { mail!m }

/* The runner, the init and the command. Every way of dying ends in EvDead, once. */
active proctype Tree()
{
  if :: fragile = true :: skip fi;              /* otherwise no runner or init is lost */
  if
  :: true -> leaderAlive = true; tell(EvStarted)
  :: true -> tell(EvStartFailed); goto dead
  :: kill -> goto dead
  fi;
  if :: othersAlive = true :: skip fi;          /* it spawned something */
  if :: stubborn = true :: skip fi;             /* the command ends of SIGKILL only */
  if :: clinging = true :: skip fi;             /* what it spawned does, and holds the pipes */
  do
  :: kill -> goto dead
  :: fragile -> goto dead                       /* runner or init lost: swept before it is said */
  :: atomic { leaderAlive && !frozen && !stubborn -> /* exits by itself, or of SIGTERM, or ignores it for now */
       leaderAlive = false;
       if
       :: othersAlive -> tell(EvExitedWithSurvivors)
       :: !othersAlive -> tell(EvExited); goto dead
       fi }
  :: !leaderAlive && sweep -> goto dead
  :: !leaderAlive && othersAlive && !frozen && !clinging -> /* survivors leave by themselves */
       goto dead
  od;
dead:
  atomic { leaderAlive = false; othersAlive = false; treeDead = true; tell(EvDead) }
}

/* The goroutines that read the pipes. */
active proctype Reader()
{
  if :: blocked = true :: blocked = true; absent = true :: skip fi;
  do
  :: (!blocked || unblock) && treeDead && !foreignHolds -> break /* every writer is gone */
  :: (!blocked || unblock) && treeDead && foreignHolds && closePipe -> break
  :: !blocked && !leaderAlive && state == Exiting && !clinging -> break /* survivors closed their ends */
  :: blocked && !absent -> blocked = false
  :: (!blocked || unblock) && catchUp -> catchUp = false; tell(EvCaughtUp)
  :: actorDone -> goto out
  od;
  eof = true;
  tell(EvEof);
out: skip
}

active proctype Client()
{
  if :: tell(ReqPause) :: tell(ReqCancel) :: tell(ReqKill) :: skip fi;
  if :: tell(ReqResume) :: skip fi
}

/* The session ends, or a timer ends the execution: closed, expired, drained, silent, overdue. With kept survivors it always does. */
active proctype Session()
{
  bool patient;
  if :: patient = true :: skip fi;              /* it waits for an end that comes by itself */
  if
  :: !patient || stubborn || frozen -> tell(ReqEnd)
  :: state == Kept -> tell(ReqEnd)
  :: gone > 0
  fi
}

active proctype Timers()
{
  do
  :: graceArmed -> graceArmed = false; tell(TmGrace)
  :: survivorsArmed -> survivorsArmed = false; tell(TmSurvivors)
  :: overdueArmed -> overdueArmed = false; tell(TmOverdue)
  :: actorDone -> break
  od
}

active proctype Process()
{
  mtype m;
  bool dead, ended, caughtUp, exited, survivors, closePipes, pausing;

  if :: keep = true :: keep = false fi;
  if :: foreignHolds = true :: foreignHolds = false fi;

  do
  :: atomic { mail?m ->  /* Receive is not interrupted */
     if
     :: m == EvStarted ->
        if
        :: state == Starting ->
           state = Running;
           if :: pausing -> frozen = true; tell(EvPaused) :: else fi
        :: else
        fi
     :: m == EvStartFailed -> skip
     :: m == EvPaused ->
        if :: pausing && state == Running -> pausing = false; state = Paused :: else fi
     :: m == EvExited || m == EvExitedWithSurvivors ->
        exited = true; pausing = false;
        survivors = (m == EvExitedWithSurvivors);
        if
        :: keep && survivors && state != Canceling -> state = Kept; caughtUp = false; if :: !ended -> catchUp = true :: else fi
        :: else ->
           state = Exiting;
           if :: survivors -> survivorsArmed = true :: else fi /* required */
        fi
     :: m == EvDead ->
        dead = true; pausing = false;
        unblock = true; /* required */
        if :: !ended -> overdueArmed = true :: else fi /* required */
     :: m == EvEof -> ended = true
     :: m == EvCaughtUp -> caughtUp = true
     :: m == TmGrace -> kill = true /* required */
     :: m == TmSurvivors -> sweep = true /* required */
     :: m == TmOverdue -> closePipes = true; caughtUp = false; if :: !ended -> catchUp = true :: else fi
     :: m == ReqPause ->
        if
        :: state == Running && !pausing -> pausing = true; frozen = true; tell(EvPaused)
        :: state == Starting -> pausing = true
        :: else
        fi
     :: m == ReqResume ->
        if
        :: state == Paused -> state = Running; frozen = false
        :: pausing -> pausing = false; if :: state == Running -> frozen = false :: else fi
        :: else
        fi
     :: m == ReqCancel || m == ReqEnd || m == ReqKill ->
        if
        :: dead -> skip
        :: else ->
           if
           :: m == ReqKill || state == Starting ->
              state = Canceling;
              kill = true /* required */
           :: m != ReqKill && state == Exiting -> sweep = true
           :: m != ReqKill && (state == Running || state == Paused || state == Kept) ->
              frozen = false;
              state = Canceling; pausing = false;
              graceArmed = true /* required */
           :: else
           fi
        fi
     fi;

     /* outputProgress */
     if
     :: dead && ended ->
        assert(treeDead);
        state = Exited;
        if :: completed == 0 -> completed++ :: else fi;
        gone++;
        break
     :: dead && !ended && caughtUp && closePipes -> closePipe = true /* required */
     :: state == Kept && !dead && (ended || caughtUp) && completed == 0 -> assert(exited); completed++
     :: state == Exiting && ended && !dead -> sweep = true
     :: else
     fi }
  od;
  assert(completed == 1 && gone == 1 && treeDead);
  actorDone = true;
  /* Late messages are taken and change nothing. */
end:
  do
  :: mail?m -> skip
  od
}

