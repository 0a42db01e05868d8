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

local function ensure_group(queue)
  local key = queue_key(queue, 'jobs')
  if call('EXISTS', key) == 0 then call('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM') end
end

local function enqueue(job)
  ensure_group(job.queue)
  local entry = call('XADD', queue_key(job.queue, 'jobs'), '*', 'job', job.id)
  call('HSET', job_key(job.id), 'state', 'queued', 'entry', entry)
  call('ZADD', queue_key(job.queue, 'live'), job.put_ms, job.id)
  for _, run in pairs(job.asked) do note_run(run, job.id) end
  touch(job.id, job.envelope)
end

local function leave(job)
  call('ZREM', queue_key(job.queue, 'live'), job.id)
  for _, run in pairs(job.asked) do call('SREM', run_key(run), job.id) end
end

-- Every delivery changes entry or attempt, so these and the worker name exactly one holder. The job's hash decides, not
-- the pending list: an operator who deletes a consumer empties that list, and the worker's answer is still good.
local function held(id, worker, entry, attempt)
  local job = load(id)
  local is_held = job.state == 'queued' and job.entry == entry and job.attempts == attempt and job.worker == worker
  return is_held and job or nil
end

local function bury(job, reason)
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
  if tonumber(job.attempts) >= max_deliveries then
    bury(job, 'worker ' .. job.worker .. ' let its lease run out')
    return nil
  end
  local attempt = call('HINCRBY', job_key(id), 'attempts', 1)
  call('HSET', job_key(id), 'worker', worker)
  touch(id, job.envelope)
  return {id, entry, tostring(attempt), job.envelope}
end
