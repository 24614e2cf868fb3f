-- What was done to one thing is found by its name: who gave a dead letter up. (A hash: a target may be longer than a
-- btree takes.)
create index operator_audit_target on operator_audit using hash (target);
