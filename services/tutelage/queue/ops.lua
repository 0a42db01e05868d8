-- One function an operation, each atomic: the life of a job from put to its end, then what is asked beside the work.

local ops = {}

-- Of each group of `size` arguments what `one` makes of it, in order.
local function each(size, one, ...)
  local arguments, results = {...}, {}
  for i = 1, #arguments, size do results[#results + 1] = one(unpack(arguments, i, i + size - 1)) end
  return results
end

local function put(entered, id, queue, run, reply_to, tokens, bytes, envelope)
  local job = load(id)
  if job.state and job.envelope ~= envelope then forget_blob(envelope) end
  if job.state == 'answered' then
    touch(id, job.answer)
    announce(id, reply_to)
    return 'answered'
  end
  if not job.state and not admit(entered, queue, run, tokens, bytes) then
    forget_blob(envelope)
    return 'full'
  end
  if job.state then
    call('HSET', job_key(id), 'to:' .. reply_to, run)
    touch(id, job.envelope)
    if job.state == 'queued' then note_run(run, id) end
    return job.state
  end
  job = {id = id, queue = queue, put_ms = now_ms(), envelope = envelope, asked = {[reply_to] = run}}
  job.tokens, job.bytes = tokens, bytes
  call('HSET', job_key(id), 'to:' .. reply_to, run, 'queue', queue, 'run', run, 'tokens', tokens, 'bytes', bytes,
    'envelope', envelope, 'put_ms', job.put_ms, 'attempts', 0)
  enqueue(job)
  return 'added'
end

function ops.put(...)
  local entered = {}
  return each(7, function(...) return put(entered, ...) end, ...)
end

-- What the worker has now, and where nothing more waits the id after which something will.
function ops.take(queue, worker, count)
  ensure_group(queue)
  note_asking(queue, worker)
  local key, taken, cursor, idle_ms, is_empty = queue_key(queue, 'jobs'), {}, '0-0', lapsed_ms(queue), false
  count = tonumber(count)
  local function keep(items)
    for _, item in ipairs(items) do taken[#taken + 1] = claim(queue, worker, item) end
  end
  repeat
    local page = call('XAUTOCLAIM', key, GROUP, worker, idle_ms, cursor, 'COUNT', count - #taken)
    cursor = page[1]
    keep(page[2])
  until cursor == '0-0' or #taken == count
  if count > 1 then count = math.min(count, #taken + even_part(queue)) end
  while #taken < count and not is_empty do
    local wanted = count - #taken
    local page = call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', wanted, 'STREAMS', key, '>')
    local items = page and page[1][2] or {}
    if #items > 0 then move_tail(queue, items[#items][1]) end
    keep(items)
    is_empty = #items < wanted
  end
  return {taken, is_empty and last_delivered(queue)}
end

function ops.renew(worker, ...)
  local function one(id, entry, attempt)
    local job = held(id, worker, entry, attempt)
    if not job then return 0 end
    -- FORCE restores a pending entry that an operator removed; JUSTID leaves the delivery count as it is.
    call('XCLAIM', queue_key(job.queue, 'jobs'), GROUP, worker, 0, entry, 'FORCE', 'JUSTID')
    touch(id, job.envelope)
    return 1
  end
  return each(3, one, ...)
end

-- Of a job that was forgotten nobody knows whose it was.
local function answer_late(id)
  local queue = load(id).queue
  if queue then count(queue, 'duplicates') end
  return 0
end

local function answer(id, worker, entry, attempt, answer)
  local job = held(id, worker, entry, attempt)
  if not job then return answer_late(id) end
  call('HSET', job_key(id), 'state', 'answered', 'answer', answer)
  local over = {'envelope', 'entry', 'worker'}
  for reply_to in pairs(job.asked) do
    announce(id, reply_to)
    over[#over + 1] = 'to:' .. reply_to
  end
  call('HDEL', job_key(id), unpack(over))
  drop(job.queue, entry)
  leave(job)
  forget_blob(job.envelope)
  touch(id, answer)
  return 1
end

function ops.answer(...) return each(5, answer, ...) end

function ops.fail(id, worker, entry, attempt, reason, retry)
  local job = held(id, worker, entry, attempt)
  if not job then return 0 end
  tell(job, reason)
  if retry == '1' and tonumber(attempt) < max_deliveries then
    enqueue(job)
    drop(job.queue, entry)
  else
    bury(job, reason)
  end
  return 1
end

function ops.release(id, worker, entry, attempt)
  local job = held(id, worker, entry, attempt)
  if not job then return 0 end
  enqueue(job)
  call('HINCRBY', job_key(id), 'attempts', -1)
  drop(job.queue, entry)
  return 1
end

-- Not for this worker: the entry stays pending, so that nobody gets it before a lease's length has passed.
function ops.leave(id, worker, entry, attempt)
  if not held(id, worker, entry, attempt) then return 0 end
  call('HINCRBY', job_key(id), 'attempts', -1)
  call('HDEL', job_key(id), 'worker')
  return 1
end

function ops.cancel(run)
  local cancelled = 0
  for _, id in ipairs(call('SMEMBERS', run_key(run))) do
    local job = load(id)
    if job.state == 'queued' then
      cancelled = cancelled + 1
      for reply_to, asker in pairs(job.asked) do
        if asker == run then
          call('HDEL', job_key(id), 'to:' .. reply_to)
          job.asked[reply_to] = nil
        end
      end
      if not next(job.asked) then forget(job) end
    end
  end
  call('DEL', run_key(run))
  return cancelled
end

function ops.result(id)
  local found = call('HMGET', job_key(id), 'state', 'answer', 'reason')
  return {id, found[1], found[2], found[3]}
end

-- The newest of the replies after that one, and what is now true of each job that they name.
function ops.read(reply_to, after, count)
  local results, seen = {}, {}
  for _, entry in ipairs(call('XRANGE', 'tutelage:replies:' .. reply_to, '(' .. after, '+', 'COUNT', count)) do
    local id = entry[2][2]
    after = entry[1]
    if not seen[id] then results[#results + 1] = ops.result(id) end
    seen[id] = true
  end
  return {after, results}
end

function ops.forget_answer(id, answer)
  local job = load(id)
  if job.state == 'answered' and job.answer == answer then call('DEL', job_key(id)) end
end

local function prune_dead(queue)
  call('ZREMRANGEBYSCORE', queue_key(queue, 'dead'), '-inf', now_ms() - ttl_ms)
end

function ops.depth(queue)
  prune_dead(queue)
  local dead = call('ZCARD', queue_key(queue, 'dead'))
  local told = call('HMGET', queue_key(queue, 'told'), 'redelivered', 'buried', 'duplicates')
  local again, buried, duplicates = tonumber(told[1] or 0), tonumber(told[2] or 0), tonumber(told[3] or 0)
  if call('EXISTS', queue_key(queue, 'jobs')) == 0 then return {0, 0, dead, false, 0, 0, again, buried, duplicates} end
  local leased = call('XPENDING', queue_key(queue, 'jobs'), GROUP)[1]
  local oldest = call('ZRANGE', queue_key(queue, 'live'), 0, 0, 'WITHSCORES')[2]
  local age_ms = oldest and math.max(0, now_ms() - tonumber(oldest)) or false
  local load = call('HMGET', queue_key(queue, 'load'), 'tokens', 'bytes')
  local waiting = call('ZCARD', queue_key(queue, 'live')) - leased
  local tokens, bytes = tonumber(load[1] or 0), tonumber(load[2] or 0)
  return {waiting, leased, dead, age_ms, tokens, bytes, again, buried, duplicates}
end

function ops.dead_letters(queue)
  prune_dead(queue)
  local letters = {}
  for _, id in ipairs(call('ZRANGE', queue_key(queue, 'dead'), 0, -1)) do
    local job = load(id)
    if job.state == 'dead' then letters[#letters + 1] = {id, job.run, tonumber(job.attempts), job.reason, job.history or ''} end
  end
  return letters
end

function ops.replay(queue, id)
  local job = load(id)
  if job.state ~= 'dead' or job.queue ~= queue then return 0 end
  job.put_ms = now_ms()
  call('HSET', job_key(id), 'put_ms', job.put_ms, 'attempts', 0)
  call('HDEL', job_key(id), 'reason', 'history')
  call('ZREM', queue_key(queue, 'dead'), id)
  enqueue(job)
  return 1
end

function ops.discard(queue, id)
  local job = load(id)
  if job.state ~= 'dead' or job.queue ~= queue then return 0 end
  call('ZREM', queue_key(queue, 'dead'), id)
  forget_blob(job.envelope)
  call('DEL', job_key(id))
  return 1
end

local function offer(name, ...)
  local function called(_, arguments)
    call = redis.call
    lease_ms, max_deliveries, ttl_ms = arguments[1], tonumber(arguments[2]), arguments[3]
    max_tokens, max_bytes, turn_ms = tonumber(arguments[4]), tonumber(arguments[5]), arguments[6]
    return ops[name](unpack(arguments, 7))
  end
  redis.register_function{function_name = LIBRARY .. '_' .. name, callback = called, flags = {...}}
end

-- A full server refuses what would fill it. The rest goes on there, so that work is read and room is made.
offer('put')
offer('take')
offer('answer')
offer('fail')
offer('release')
offer('leave')
offer('replay')
offer('renew', 'allow-oom')
offer('cancel', 'allow-oom')
offer('discard', 'allow-oom')
offer('forget_answer', 'allow-oom')
offer('depth', 'allow-oom')
offer('dead_letters', 'allow-oom')
offer('result', 'no-writes')
offer('read', 'no-writes')
