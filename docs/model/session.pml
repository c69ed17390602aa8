/*
 * The life of one session: the two tables at the top of actors/session.go against
 * everything that may happen to a session. Checked by `make verify` for every
 * interleaving:
 *
 *   - no deadlock, and no state in which the session can no longer stop;
 *   - it stops, and tells its clients to go, only when nothing of it lives;
 *   - it does not stop with an end that no client was sent, or that was sent a moment
 *     ago and may have been lost, unless a client closed it or did not come in time;
 *   - each client that is connected when it stops has been told to go;
 *   - an eviction is answered, by a refusal or by the end;
 *   - a drain waits only for commands and for clients that were cut off, and not
 *     beyond its deadline.
 *
 * The environment: a client with two connections, one after the other or at once,
 * that may break with the end read or not, hang, or be closed; one command, or none,
 * that ends by itself or only when it is cancelled; a server that may drain; a manager
 * that evicts what it believes to be evictable; timers that fire whenever they like,
 * and whose messages may come too late. Left out: a failure, which is every phase's way
 * to stopped, and a session that ends with its connection, which is never drained.
 *
 * .ci/verify also takes out, one at a time, the lines that are marked required, and
 * demands that spin then finds a run that goes wrong.
 */

#define CONNS 2
#define AGES  4 /* more than mail holds */

mtype = { Serving, Ending, Drained, Lingering, Closing, Stopped };

/* mailbox of the session actor, with a connection or the age of a timer */
mtype = { Attach, LostUnread, LostRead, ClientDone, LastEnd, ResumeExpired, IdleCheck,
          Evict, Drain, DrainDeadline, CloseTimeout };
chan mail = [3] of { mtype, byte };

/* the session */
mtype phase = Serving;
byte conns = 1;                 /* how many are attached */
bool attached[CONNS];
byte live;
bool unread, draining;
bool recent;                    /* the last end is no longer ago than the return grace */
/* its timers; a message of an earlier one has another age */
bool resumeArmed, closeArmed, idleArmed = true;
byte resumeAge, closeAge;

/* what others were told */
bool refused[CONNS], told[CONNS], canceled, evictable;
/* a client closed it, or did not come in time */
bool excused;

/* what the environment will do */
bool endless, drainComes;

inline attachedNow() { resumeArmed = false; resumeAge = (resumeAge + 1) % AGES; evictable = false }
inline detach()      { resumeArmed = true; resumeAge = (resumeAge + 1) % AGES; evictable = (live == 0 && !unread) }
inline stopClose()   { closeArmed = false; closeAge = (closeAge + 1) % AGES }
inline armClose()    { closeArmed = true; closeAge = (closeAge + 1) % AGES }
inline cancel()      { if :: phase == Serving -> attachedNow(); phase = Ending; canceled = true :: else fi }

inline tellAll()
{
  assert(live == 0);
  for (c : 0 .. CONNS - 1) { if :: attached[c] -> told[c] = true :: else fi }
  c = 0;
  armClose()
}

proctype Session()
{
  mtype m;
  byte arg, c;
  bool answered;

  do
  :: phase != Stopped -> atomic { mail?m, arg ->
     if :: m == ResumeExpired && arg != resumeAge -> m = 0 :: else fi; /* required */
     if :: m == CloseTimeout && arg != closeAge -> m = 0 :: else fi;   /* required */

     /* the first table */
     if
     :: m == Attach && (phase == Ending || phase == Closing) ->
        refused[arg] = true
     :: m == Attach && (phase == Serving || phase == Drained || phase == Lingering) ->
        attached[arg] = true; conns++;
        if :: phase != Serving -> phase = Serving; stopClose() :: else fi; /* required */
        attachedNow();                                                     /* required */
     :: m == ClientDone ->
        attached[arg] = false; conns--; excused = true;
        if :: phase == Drained -> phase = Closing :: else fi;
        cancel();                                                          /* required */
     :: m == LostUnread || m == LostRead ->
        attached[arg] = false; conns--;
        if :: m == LostRead && live == 0 -> unread = false :: else fi;
        if :: phase == Serving && conns == 0 -> detach() :: else fi;       /* required */
     :: m == LastEnd -> live = 0; recent = true; idleArmed = true; evictable = false /* required */
     :: m == ResumeExpired ->
        assert(phase == Serving && conns == 0);
        excused = true;
        cancel();                                                          /* required */
     :: m == IdleCheck ->                       /* while something runs the timer is set again */
        if :: live == 0 && phase == Serving -> excused = true; cancel() :: else fi; /* required */
     :: m == Evict ->
        if
        :: phase == Serving && conns == 0 && live == 0 && !unread -> excused = true; cancel(); answered = true
        :: phase == Ending || phase == Closing -> answered = true          /* by the end */
        :: else -> answered = true                                         /* required: the refusal */
        fi;
        assert(answered && (phase != Serving || conns > 0 || live > 0 || unread)); answered = false
     :: m == Drain -> draining = true
     :: m == DrainDeadline ->
        excused = true;
        if :: phase == Drained || phase == Lingering -> phase = Closing :: else fi; /* required */
        cancel();                                                          /* required */
        assert(phase == Ending || phase == Closing)
     :: m == CloseTimeout && phase == Lingering -> recent = false; phase = Stopped
     :: m == CloseTimeout && (phase == Drained || phase == Closing) ->     /* a client did not read in time */
        if :: arg == closeAge -> excused = true :: else fi;
        phase = Stopped                                                    /* required */
     :: else
     fi;
     m = 0; arg = 0;

     /* the second table */
     do
     :: phase == Serving && draining && live == 0 && (conns > 0 || !unread) -> attachedNow(); phase = Drained; tellAll() /* required */
     :: phase == Ending && live == 0 -> phase = Closing; tellAll()                         /* required */
     :: phase == Drained && conns == 0 && unread -> phase = Serving; stopClose(); detach() /* required */
     :: phase == Drained && conns == 0 && !unread && recent -> phase = Lingering; armClose() /* required */
     :: phase == Drained && conns == 0 && !unread && !recent -> phase = Stopped            /* required */
     :: phase == Closing && conns == 0 -> phase = Stopped                                  /* required */
     :: else -> break
     od;
     assert(!(phase == Serving && draining && live == 0 && (conns > 0 || !unread)));
     assert(!((phase == Drained || phase == Closing) && conns == 0)) }
  :: phase == Stopped -> break
  od;

  atomic {
    assert(live == 0);
    assert(excused || (!unread && !recent) || (!unread && !draining));
    for (c : 0 .. CONNS - 1) { assert(!attached[c] || told[c]) }
    c = 0
  }
  /* A connection that waits for an answer sees that the session has stopped. */
end:
  do
  :: mail?_, _ -> skip
  od
}

/* One connection. The first is attached from the beginning, the other attaches when it likes, or never. */
proctype Connection(byte i)
{
  if
  :: i == 0
  :: i > 0 ->
     mail!Attach, i;
     if
     :: attached[i]
     :: refused[i] || phase == Stopped -> goto out
     fi
  :: i > 0 -> goto out
  fi;
  if
  :: drainComes || !endless -> told[i] || phase == Stopped /* it stays until it is told to go */
  :: skip
  fi;
  if
  :: mail!LostUnread, i
  :: mail!LostRead, i
  :: mail!ClientDone, i
  :: told[i] -> phase == Stopped                 /* it hangs: its client does not read */
  fi;
out: skip
}

proctype Command()
{
  if
  :: live == 1 && (!endless || canceled) -> mail!LastEnd, 0
  :: phase == Stopped
  fi
}

proctype Timers()
{
  do
  :: atomic { resumeArmed && nfull(mail) -> resumeArmed = false; mail!ResumeExpired, resumeAge }
  :: atomic { closeArmed && nfull(mail) -> closeArmed = false; mail!CloseTimeout, closeAge }
  :: atomic { idleArmed && nfull(mail) -> idleArmed = false; mail!IdleCheck, 0 }
  :: recent && phase != Lingering -> recent = false /* time passes */
  :: phase == Stopped -> break
  od
}

proctype Manager()
{
  if
  :: evictable -> mail!Evict, 0
  :: skip
  fi;
  if
  :: drainComes -> mail!Drain, 0; mail!DrainDeadline, 0
  :: else
  fi
}

init
{
  atomic {
    attached[0] = true;
    if :: endless = true :: skip fi;
    if :: drainComes = true :: skip fi;
    if :: live = 1; unread = true :: skip fi;
    run Session(); run Connection(0); run Connection(1); run Command(); run Timers(); run Manager()
  }
}
