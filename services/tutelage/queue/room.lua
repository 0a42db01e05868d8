-- Room in a queue, by the tokens and bytes of its jobs that wait or are leased. They are counted when a job comes into the
-- set `live` and when it leaves it, which happens once each, however often it is asked for and delivered.

local function come_alive(job)
  if call('ZADD', queue_key(job.queue, 'live'), job.put_ms, job.id) == 0 then return end
  local key = queue_key(job.queue, 'load')
  call('HINCRBY', key, 'tokens', job.tokens or 0)  -- none: an older version put it
  call('HINCRBY', key, 'bytes', job.bytes or 0)
end

local function leave_life(job)
  if call('ZREM', queue_key(job.queue, 'live'), job.id) == 0 then return end
  local key = queue_key(job.queue, 'load')
  local tokens = call('HINCRBY', key, 'tokens', -(job.tokens or 0))
  local bytes = call('HINCRBY', key, 'bytes', -(job.bytes or 0))
  if tokens <= 0 and bytes <= 0 then call('DEL', key) end
end

-- Nothing lives: then nothing is counted either, whatever an older version left uncounted.
local function is_empty(queue)
  if call('EXISTS', queue_key(queue, 'live')) == 1 then return false end
  call('DEL', queue_key(queue, 'load'))
  return true
end

-- Whether a new job enters its queue. entered: by queue, whether the last new job of this call did
local function admit(entered, queue, run, tokens, bytes)
  if entered[queue] == false then return false end
  local first = call('GET', queue_key(queue, 'next'))
  local is_turn = not first or first == run
  local load = call('HMGET', queue_key(queue, 'load'), 'tokens', 'bytes')
  local fits = (load[1] or 0) + tokens <= max_tokens and (load[2] or 0) + bytes <= max_bytes
  local enters = is_turn and (fits or is_empty(queue))
  if enters and first then call('DEL', queue_key(queue, 'next')) end
  if not enters and is_turn and not entered[queue] then call('SET', queue_key(queue, 'next'), run, 'PX', turn_ms) end
  entered[queue] = enters
  return enters
end
