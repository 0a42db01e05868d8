-- A queue as a stream with one consumer group: how a job enters it, is held by a worker, and leaves it.

-- XDEL at or after the group's last delivered entry makes `lag` null. So undelivered entries are never deleted, and the
-- last delivered one (`tail`) only once a later one was delivered.
local function drop(queue, entry)
  call('XACK', queue_key(queue, 'jobs'), GROUP, entry)
  if call('GET', queue_key(queue, 'tail')) ~= entry then call('XDEL', queue_key(queue, 'jobs'), entry) end
end

local function move_tail(queue, entry)
  local key, former = queue_key(queue, 'jobs'), call('GET', queue_key(queue, 'tail'))
  call('SET', queue_key(queue, 'tail'), entry)
  if former and #call('XPENDING', key, GROUP, former, former, 1) == 0 then call('XDEL', key, former) end
end

-- The id after which the group has been given nothing, once it was given all there is.
local function last_delivered(queue)
  local tail = call('GET', queue_key(queue, 'tail'))
  if tail then return tail end
  local info = call('XINFO', 'STREAM', queue_key(queue, 'jobs'))
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local function ensure_group(queue)
  local key = queue_key(queue, 'jobs')
  if call('EXISTS', key) == 0 then call('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM') end
end

-- Who asked, and when: Redis 7.0 knows no consumer that was given nothing yet.
local function note_asking(queue, worker)
  local key = queue_key(queue, 'asking')
  call('ZADD', key, now_ms(), worker)
  call('PEXPIRE', key, lease_ms)
end

-- Of what waits, an even part for each worker that asked lately, so that none takes what another could begin at once.
local function even_part(queue)
  local key, now, lately = queue_key(queue, 'asking'), now_ms(), tonumber(lease_ms)
  call('ZREMRANGEBYSCORE', key, '-inf', now - lately)
  local workers = call('ZCOUNT', key, now - lately, now + lately)
  local waiting = call('ZCARD', queue_key(queue, 'live')) - call('XPENDING', queue_key(queue, 'jobs'), GROUP)[1]
  return workers > 1 and math.max(1, math.ceil(waiting / workers)) or math.huge
end

-- How long a lease must be silent to be over. Where the server's clock was set back by more than a lease, idle times say
-- nothing for as long: then every lease is over once, which costs work done twice and loses none.
local function lapsed_ms(queue)
  local key, now = queue_key(queue, 'clock'), now_ms()
  local before, length = tonumber(call('GET', key) or 0), tonumber(lease_ms)
  if math.abs(now - before) > length / 2 then call('SET', key, now, 'PX', ttl_ms) end
  return before - now > length and 0 or lease_ms
end

local function enqueue(job)
  ensure_group(job.queue)
  local entry = call('XADD', queue_key(job.queue, 'jobs'), '*', 'job', job.id)
  call('HSET', job_key(job.id), 'state', 'queued', 'entry', entry)
  if job.worker then call('HDEL', job_key(job.id), 'worker') end
  come_alive(job)
  for _, run in pairs(job.asked) do note_run(run, job.id) end
  touch(job.id, job.envelope)
end

local function leave(job)
  leave_life(job)
  for _, run in pairs(job.asked) do call('SREM', run_key(run), job.id) end
end

-- Every delivery changes entry or attempt, so these and the worker name exactly one holder. The job's hash decides, not
-- the pending list: an operator who deletes a consumer empties that list, and the worker's answer is still good.
local function held(id, worker, entry, attempt)
  local job = load(id)
  local is_held = job.state == 'queued' and job.entry == entry and job.attempts == attempt and job.worker == worker
  return is_held and job or nil
end

local function tell(job, what)
  local worker, reason = string.gsub(job.worker, '%s+', ' '), string.gsub(what, '%s+', ' ')
  local line = string.format('%d\t%s\t%s', now_ms(), worker, reason)
  job.history = job.history and job.history .. '\n' .. line or line
  call('HSET', job_key(job.id), 'history', job.history)
end

-- Counts since the queue began.
local function count(queue, what) call('HINCRBY', queue_key(queue, 'told'), what, 1) end

local function bury(job, reason)
  count(job.queue, 'buried')
  call('HSET', job_key(job.id), 'state', 'dead', 'reason', reason)
  drop(job.queue, job.entry)
  leave(job)
  call('ZADD', queue_key(job.queue, 'dead'), now_ms(), job.id)
  touch(job.id, job.envelope)
  for reply_to in pairs(job.asked) do announce(job.id, reply_to) end
end

local function forget(job)
  local entry = job.entry
  if #call('XPENDING', queue_key(job.queue, 'jobs'), GROUP, entry, entry, 1) == 1 then drop(job.queue, entry) end
  leave(job)
  forget_blob(job.envelope)
  call('DEL', job_key(job.id))
end

-- One stream entry that now belongs to `worker`: leased, or given up, or dropped because nobody asks for it any more.
local function claim(queue, worker, item)
  local entry, id = item[1], item[2][2]
  local job = load(id)
  if job.state ~= 'queued' or job.entry ~= entry then
    drop(queue, entry)
    if not job.state then call('ZREM', queue_key(queue, 'live'), id) end
    return nil
  end
  if job.worker then tell(job, 'let its lease run out') end
  if tonumber(job.attempts) >= max_deliveries then
    bury(job, 'worker ' .. job.worker .. ' let its lease run out')
    return nil
  end
  local attempt = tostring(job.attempts + 1)
  if attempt ~= '1' then count(queue, 'redelivered') end
  call('HSET', job_key(id), 'attempts', attempt, 'worker', worker)
  touch(id, job.envelope)
  return {id, entry, attempt, job.envelope}
end
