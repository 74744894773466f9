"""What docs/src/models.md adds to LiteLLM's own answers, and what it leaves out of them: the named differences, and no others.

LiteLLM is asked with every key. Where it answers and we say no, one of these has to be the reason:

organization   LiteLLM never asks the team's organization, or one of the person's, when somebody chats; our rule does.
user           LiteLLM asks the person's own list only for keys without a team; our rule does for all of them.
price list     LiteLLM lets a pattern like openai/* match a bare gpt-4, whose provider its price list knows; nobody else has that.
alias          A name that an alias of the key or its team leads elsewhere: Open WebUI asks with a key that knows no alias, and
               would get the real model of that name.

And where LiteLLM has no key to be asked with, since somebody has none for a team they are in, or none and no team at all, a key
that limits nothing is made for the question: nobody is limited by a key they do not have."""

import re

PROVIDERS = ('openai', 'anthropic', 'mistral', 'azure', 'text-completion-openai', 'vertex_ai', 'cohere', 'groq')


class Rule:
    """LiteLLM's rows at one moment, and which models it serves with which access groups."""

    def __init__(self, db, served):
        def by(key, table):
            there = db.one(f'select to_regclass(\'"LiteLLM_{table}"\') is not null')
            return {r[key]: r for r in db.rows(f'select * from "LiteLLM_{table}"')} if there else {}

        self.served = served  # name: access groups
        self.users, self.teams, self.orgs = (
            by('user_id', 'UserTable'),
            by('team_id', 'TeamTable'),
            by('organization_id', 'OrganizationTable'),
        )
        self.keys, self.projects, self.aliases = (
            by('token', 'VerificationToken'),
            by('project_id', 'ProjectTable'),
            by('id', 'ModelTable'),
        )
        self.groups, self.budgets = by('access_group_id', 'AccessGroupTable'), by('budget_id', 'BudgetTable')
        self.team_members, self.org_members = (
            db.rows('select * from "LiteLLM_TeamMembership"'),
            db.rows('select * from "LiteLLM_OrganizationMembership"'),
        )

    def allows(self, names, model):
        """One list at one level."""
        if not names or '*' in names or 'all-proxy-models' in names:
            return True
        tags = set(self.served.get(model) or ())
        return any(n == model or n in tags or '*' in n and re.fullmatch(n.replace('*', '.*'), model) for n in names)

    def priced(self, names, model):
        """Whether a list allows it only because LiteLLM knows whose model it is."""
        if self.allows(names, model):
            return False
        return any('*' in n and re.fullmatch(n.replace('*', '.*'), f'{p}/{model}') for n in names for p in PROVIDERS)

    def email(self, user):
        return (user['user_email'] or '').strip().lower()

    def active(self, user):
        return '@' in self.email(user) and user['metadata'].get('scim_active') is not False

    def keys_of(self, user):
        """The keys of somebody: no sessions of LiteLLM's own pages."""
        return [k for k in self.keys.values() if k['user_id'] == user['user_id'] and k['team_id'] != 'litellm-dashboard']

    def teams_of(self, user):
        def is_them(entry):
            if entry.get('user_id'):
                return entry['user_id'] == user['user_id']
            return (entry.get('user_email') or '').strip().lower() == self.email(user)

        return [t for t in self.teams.values() if any(is_them(e) for e in t['members_with_roles'] or [])]

    def open_paths(self, user):
        """Those without a key: each team they are in and have no key for, and None where they have nothing at all."""
        keys, teams = self.keys_of(user), self.teams_of(user)
        with_key = {k['team_id'] for k in keys}
        return [t['team_id'] for t in teams if t['team_id'] not in with_key] + ([None] if not keys and not teams else [])

    def team_aliases(self, team):
        return (self.aliases.get(team['model_id']) or {}).get('aliases') or {} if team else {}

    def levels(self, user, team, key):
        """What LiteLLM asks on a path, level by level; any of a level's lists is enough."""

        def group(ids, also=lambda g: True):
            models = [
                m for i in ids or [] if i in self.groups and also(self.groups[i]) for m in self.groups[i]['access_model_names']
            ]
            return [models] if models else []

        def goes_beyond(g):
            return team['team_id'] in g['assigned_team_ids'] or key['token'] in g['assigned_key_ids']

        if key:
            yield [key['models'], *group(key.get('access_group_ids'))]
            project = self.projects.get(key.get('project_id'))
            if project:
                yield [project['models']]
        if team:
            yield [
                team['models'],
                *group(team.get('access_group_ids')),
                *(group(key.get('access_group_ids'), goes_beyond) if key else []),
            ]
            for m in self.team_members:
                if (m['user_id'], m['team_id']) == (user['user_id'], team['team_id']) and m['budget_id'] in self.budgets:
                    yield [self.budgets[m['budget_id']].get('allowed_models')]
        else:
            yield [user['models']]

    def denies(self, user, team_id, key, model):
        """The names of the differences by which we deny a model LiteLLM answered with."""
        team, names = self.teams.get(team_id), set()
        if team and team['organization_id'] in self.orgs and not self.allows(self.orgs[team['organization_id']]['models'], model):
            names.add('organization')
        if not team_id:
            mine = {m['organization_id'] for m in self.org_members if m['user_id'] == user['user_id']} | {user['organization_id']}
            mine &= self.orgs.keys()
            if mine and not any(self.allows(self.orgs[o]['models'], model) for o in mine):
                names.add('organization')
        if team_id and 'no-default-models' not in (user['models'] or []) and not self.allows(user['models'], model):
            names.add('user')
        if self.aliased(user, team_id, key, model):
            names.add('alias')
        for lists in self.levels(user, team, key):
            if not any(self.allows(l, model) for l in lists) and any(self.priced(l, model) for l in lists):
                names.add('price list')
        return names

    def aliased(self, user, team_id, key, model):
        """Whether an alias leads a name elsewhere, and the lists would not allow the real model of that name."""
        team = self.teams.get(team_id)
        if model not in ((key or {}).get('aliases') or {}) and model not in self.team_aliases(team):
            return False
        return not all(
            any(self.allows(names, model) or 'all-team-models' in names for names in lists)
            for lists in self.levels(user, team, key)
        )
